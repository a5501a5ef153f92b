#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements of a task, and of a partial sum

template <class T>
MOEBIUS_CLONES void AddRange(const T* a, const T* b, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(y[i], Get(a[i]) + Get(b[i]));
}

template <class From, class To>
MOEBIUS_CLONES void CastRange(const From* x, To* y, bool accumulate, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(y[i], Get(x[i]), accumulate);
}

MOEBIUS_CLONES void ScaleRange(float* x, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

template <class T>
MOEBIUS_CLONES double SumOfSquaresRange(const T* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double element = Get(x[i]);
    sum += element * element;
  }
  return sum;
}

}  // namespace

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx) {
  WithType(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(y.size(), kGrain, [&](int64_t i, int64_t end) {
      AddRange(a.data<T>() + i, b.data<T>() + i, y.data<T>() + i, end - i);
    });
  });
}

void Cast(const kernels::CastArgs& args, Context& ctx) {
  WithType(args.x.dtype(), [&](auto from) {
    WithType(args.y.dtype(), [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      ctx.pool().ForRange(args.x.size(), kGrain, [&](int64_t i, int64_t end) {
        CastRange(args.x.data<From>() + i, args.y.data<To>() + i, args.accumulate, end - i);
      });
    });
  });
}

void Scale(const Tensor& x, double factor, Context& ctx) {
  ctx.pool().ForRange(x.size(), kGrain, [&](int64_t i, int64_t end) {
    ScaleRange(x.data<float>() + i, static_cast<float>(factor), end - i);
  });
}

void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx) {
  const int64_t num_blocks = (x.size() + kGrain - 1) / kGrain;
  const Tensor partial = ctx.Empty(DType::kF64, {num_blocks}, "sum_of_squares.partial");
  WithType(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(x.size(), kGrain, [&](int64_t i, int64_t end) {
      partial.data<double>()[i / kGrain] = SumOfSquaresRange(x.data<T>() + i, end - i);
    });
  });
  double total = 0;
  for (const double block : partial.span<double>()) total += block;
  sum.data<double>()[0] = total;
}

}  // namespace moebius::cpu
