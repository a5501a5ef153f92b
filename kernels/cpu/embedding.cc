#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTokens = 64;            // of a task, forward
constexpr int64_t kTableElements = 65536;  // of a task, backward

// The tokens of each row of the table, in order: those of row v stand at [first[v], first[v + 1]).
// Tokens of other ranges stand nowhere.
struct TokensByRow {
  std::vector<int32_t> first, token;
};
TokensByRow ByRow(const kernels::EmbeddingGradientArgs& args) {
  const int64_t V = args.dw.shape()[0], T = args.tokens.size();
  const int32_t* tokens = args.tokens.data<int32_t>();
  const auto row_of = [&](int64_t t) { return tokens[t] - args.range.first; };
  const auto is_here = [&](int64_t t) { return 0 <= row_of(t) && row_of(t) < V; };
  TokensByRow rows = {.first = std::vector<int32_t>(V + 1), .token = {}};
  for (int64_t t = 0; t < T; ++t)
    if (is_here(t)) ++rows.first[row_of(t) + 1];
  std::partial_sum(rows.first.begin(), rows.first.end(), rows.first.begin());
  rows.token.resize(rows.first[V]);
  std::vector<int32_t> next(rows.first.begin(), rows.first.end() - 1);
  for (int64_t t = 0; t < T; ++t)
    if (is_here(t)) rows.token[next[row_of(t)]++] = static_cast<int32_t>(t);
  return rows;
}

}  // namespace

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx) {
  const auto [V, D] = Dims<2>(args.w);
  const Write write = WriteOf(args.y, D);
  const auto row_of = [&, V = V, D = D](int64_t t) -> const float* {
    const int64_t row = args.tokens.data<int32_t>()[t] - args.range.first;
    return 0 <= row && row < V ? args.w.data<float>() + row * D : nullptr;
  };
  WithRows(args.y.dtype(), [&, D = D](const auto& rows, auto zero) {
    using Element = decltype(zero);
    ForRange(ctx, args.y.shape()[0], kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float *row = row_of(t), *next = t + 1 < end ? row_of(t + 1) : nullptr;
        Element* y = At<Element>(args.y, t * D);
        if (next != nullptr) FetchStart(next);
        row == nullptr ? (void)std::fill_n(y, D, Element{}) : rows.scale(row, 1.0f, y, write, D);
      }
    });
  });
}

// Each task owns a range of the table. Rows of one token are written at once.
void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context& ctx) {
  const auto [V, D] = Dims<2>(args.dw);
  const TokensByRow by_row = ByRow(args);
  const Write write = WriteOf(args.dw, D, args.accumulate);
  const std::vector<float> zeros(D);
  WithRows(args.dy.dtype(), [&, V = V, D = D](const auto& rows, auto zero) {
    using Element = decltype(zero);
    const auto dy = [&](int32_t i) { return At<Element>(args.dy, by_row.token[i] * D); };
    ForRange(ctx, V, std::max<int64_t>(1, kTableElements / D), [&](int64_t v, int64_t end) {
      const int32_t last = by_row.first[end];
      for (; v < end; ++v) {
        float* dw = args.dw.data<float>() + v * D;
        const int32_t first = by_row.first[v], next = by_row.first[v + 1];
        if (first == next && !args.accumulate) Simd().rows.copy(zeros.data(), dw, write, D);
        for (int32_t i = first; i < next; ++i) {
          if (i + 1 < last) FetchStart(dy(i + 1));
          const Write first_write = next - first == 1 || args.accumulate ? write : Write::kReplace;
          rows.add(dy(i), dw, i == first ? first_write : Write::kAdd, D);
        }
      }
    });
  });
}

}  // namespace moebius::cpu
