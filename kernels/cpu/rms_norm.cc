#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16384;          // elements of a task
constexpr int64_t kBlockElements = 65536;  // of a partial sum of the weight gradient

// Of consecutive segments: their width, or that of the whole rows of which they are a part, and
// then the sums of those.
struct Rows {
  float width, epsilon;
  const double *squares = nullptr, *products = nullptr;
};

Rows RowsFrom(const kernels::WholeRows& whole, int64_t C, double epsilon, int64_t r) {
  const auto at = [r](const Tensor& x) { return x.defined() ? x.data<double>() + r : nullptr; };
  return {static_cast<float>(whole.width > 0 ? whole.width : C), static_cast<float>(epsilon),
          at(whole.squares), at(whole.products)};
}

template <class T>
MOEBIUS_INLINE float Product(const T* a, const T* b, int64_t C) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += Get(a[c]) * Get(b[c]);
  return sum;
}

template <class T>
MOEBIUS_INLINE float Product(const T* a, const T* b, const float* w, int64_t C) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += Get(a[c]) * w[c] * Get(b[c]);
  return sum;
}

template <class T>
MOEBIUS_INLINE float ReciprocalRms(const T* x, int64_t C, const Rows& rows, int64_t r) {
  const float sum =
      rows.squares == nullptr ? Product(x, x, C) : static_cast<float>(rows.squares[r]);
  return 1.0f / std::sqrt(sum / rows.width + rows.epsilon);
}

template <class T>
MOEBIUS_CLONES void Normalize(const T* x, const float* w, const Rows& rows, T* y, int64_t R,
                              int64_t C) {
  for (int64_t r = 0; r < R; ++r, x += C, y += C) {
    const float rstd = ReciprocalRms(x, C, rows, r);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) Put(y[c], Get(x[c]) * rstd * w[c]);
  }
}

template <class T>
MOEBIUS_CLONES void SumProducts(const T* a, const T* b, const float* w, double* sums, int64_t R,
                                int64_t C) {
  for (int64_t r = 0; r < R; ++r, a += C, b += C) {
    sums[r] = w == nullptr ? Product(a, b, C) : Product(a, b, w, C);
  }
}

template <class T>
MOEBIUS_CLONES void InputGradient(const T* dy, const T* x, const float* w, const Rows& rows, T* dx,
                                  bool accumulate, int64_t R, int64_t C) {
  for (int64_t r = 0; r < R; ++r, dy += C, x += C, dx += C) {
    const float rstd = ReciprocalRms(x, C, rows, r);
    const float inner =
        rows.products == nullptr ? Product(dy, x, w, C) : static_cast<float>(rows.products[r]);
    const float along_x = inner * rstd * rstd / rows.width;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c)
      Put(dx[c], rstd * (Get(dy[c]) * w[c] - Get(x[c]) * along_x), accumulate);
  }
}

template <class T>
MOEBIUS_CLONES void AddWeightGradient(const T* dy, const T* x, const Rows& rows, float* dw,
                                      int64_t R, int64_t C) {
  for (int64_t r = 0; r < R; ++r, dy += C, x += C) {
    const float rstd = ReciprocalRms(x, C, rows, r);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) dw[c] += Get(dy[c]) * Get(x[c]) * rstd;
  }
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const kernels::WholeRows& whole) {
  const int64_t C = w.size();
  WithType(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(
        x.size() / C, std::max<int64_t>(1, kGrain / C), [&](int64_t r, int64_t end) {
          Normalize(x.data<T>() + r * C, w.data<float>(), RowsFrom(whole, C, epsilon, r),
                    y.data<T>() + r * C, end - r, C);
        });
  });
}

void RowProducts(const kernels::RowProductsArgs& args, Context& ctx) {
  const auto [R, C] = Dims<2>(args.a);
  const float* w = args.w.defined() ? args.w.data<float>() : nullptr;
  WithType(args.a.dtype(), [&, R = R, C = C](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, std::max<int64_t>(1, kGrain / C), [&](int64_t r, int64_t end) {
      SumProducts(args.a.data<T>() + r * C, args.b.data<T>() + r * C, w,
                  args.sums.data<double>() + r, end - r, C);
    });
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const int64_t C = args.w.size(), grain = std::max<int64_t>(1, kGrain / C);
  WithType(args.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(args.x.size() / C, grain, [&](int64_t r, int64_t end) {
      InputGradient(args.dy.data<T>() + r * C, args.x.data<T>() + r * C, args.w.data<float>(),
                    RowsFrom(args.whole, C, args.epsilon, r), args.dx.data<T>() + r * C,
                    args.accumulate, end - r, C);
    });
  });
}

void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx) {
  const int64_t C = args.dw.size(), R = args.x.size() / C;
  const int64_t block = std::max<int64_t>(1, kBlockElements / C);
  const int64_t num_blocks = (R + block - 1) / block;
  const Tensor partial = ctx.Zeros(DType::kF32, {num_blocks, C}, "rms_norm.partial");
  WithType(args.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, block, [&](int64_t r, int64_t end) {
      AddWeightGradient(args.dy.data<T>() + r * C, args.x.data<T>() + r * C,
                        RowsFrom(args.whole, C, args.epsilon, r),
                        partial.data<float>() + r / block * C, end - r, C);
    });
  });
  float* dw = args.dw.data<float>();
  if (!args.accumulate) std::fill_n(dw, C, 0.0f);
  for (int64_t b = 0; b < num_blocks; ++b)
    for (int64_t c = 0; c < C; ++c) dw[c] += partial.data<float>()[b * C + c];
}

}  // namespace moebius::cpu
