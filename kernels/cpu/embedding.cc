#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTokens = 64;            // of a task, forward
constexpr int64_t kTableElements = 65536;  // of a task, backward

template <class T>
MOEBIUS_CLONES void CopyRow(const float* w, T* y, int64_t D) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) Put(y[d], w[d]);
}

template <class T>
MOEBIUS_CLONES void AddRow(const T* dy, float* dw, int64_t D) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) dw[d] += Get(dy[d]);
}

}  // namespace

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx) {
  const auto [V, D] = Dims<2>(args.w);
  WithType(args.y.dtype(), [&, V = V, D = D](auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(args.y.shape()[0], kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = args.tokens.data<int32_t>()[t] - args.range.first;
        Element* y = args.y.data<Element>() + t * D;
        if (row < 0 || row >= V) {
          std::fill_n(y, D, Element{});
        } else {
          CopyRow(args.w.data<float>() + row * D, y, D);
        }
      }
    });
  });
}

// Each task owns a range of the table, and visits the tokens that fall into it.
void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context& ctx) {
  const auto [T, D] = Dims<2>(args.dy);
  const int64_t V = args.dw.shape()[0];
  const auto row_of = [tokens = args.tokens.data<int32_t>(), first = args.range.first](int32_t t) {
    return tokens[t] - first;
  };
  std::vector<int32_t> by_token(T);
  std::iota(by_token.begin(), by_token.end(), 0);
  std::ranges::stable_sort(by_token, {}, row_of);

  WithType(args.dy.dtype(), [&, D = D](auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(V, std::max<int64_t>(1, kTableElements / D), [&](int64_t v, int64_t end) {
      float* dw = args.dw.data<float>();
      if (!args.accumulate) std::fill_n(dw + v * D, (end - v) * D, 0.0f);
      auto it = std::ranges::lower_bound(by_token, v, {}, row_of);
      for (; it != by_token.end() && row_of(*it) < end; ++it)
        AddRow(args.dy.data<Element>() + *it * D, dw + row_of(*it) * D, D);
    });
  });
}

}  // namespace moebius::cpu
