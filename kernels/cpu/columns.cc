#include <algorithm>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 64;  // rows of a task

template <class T>
MOEBIUS_CLONES void AddRow(const T* x, T* sum, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(sum[i], Get(x[i]), true);
}

}  // namespace

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx) {
  const auto [T, n] = Dims<2>(y);
  const int64_t N = x.shape()[1];
  WithType(x.dtype(), [&, T = T, n = n](auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(T, kGrain, [&](int64_t t, int64_t end) {
      for (; t < end; ++t) {
        std::copy_n(x.data<Element>() + t * N + begin, n, y.data<Element>() + t * n);
      }
    });
  });
}

void ColumnsGradient(const kernels::ColumnsGradientArgs& args, Context& ctx) {
  const auto [T, n] = Dims<2>(args.dy);
  const int64_t N = args.dx.shape()[1];
  WithType(args.dx.dtype(), [&, T = T, n = n](auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(T, kGrain, [&](int64_t t, int64_t end) {
      for (; t < end; ++t) {
        const Element* dy = args.dy.data<Element>() + t * n;
        Element* dx = args.dx.data<Element>() + t * N;
        if (args.accumulate) {
          AddRow(dy, dx + args.begin, n);
        } else {
          std::fill_n(dx, args.begin, Element{});
          std::copy_n(dy, n, dx + args.begin);
          std::fill_n(dx + args.begin + n, N - args.begin - n, Element{});
        }
      }
    });
  });
}

}  // namespace moebius::cpu
