#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

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
float ReciprocalRms(const RowKernels<T>& kernels, const T* x, int64_t C, const Rows& rows,
                    int64_t r) {
  const float sum =
      rows.squares == nullptr ? kernels.dot(x, x, C) : static_cast<float>(rows.squares[r]);
  return 1.0f / std::sqrt(sum / rows.width + rows.epsilon);
}

template <class T>
void InputGradient(const RowKernels<T>& kernels, const RmsNormGradientRow<T>& first,
                   const Rows& rows, int64_t R, int64_t C) {
  RmsNormGradientRow<T> row = first;
  for (int64_t r = 0; r < R; ++r, row.dy += C, row.x += C, row.dx += C) {
    row.rstd = ReciprocalRms(kernels, row.x, C, rows, r);
    const float inner = rows.products == nullptr ? kernels.weighted_dot(row.dy, row.x, row.w, C)
                                                 : static_cast<float>(rows.products[r]);
    row.along_x = inner * row.rstd * row.rstd / rows.width;
    kernels.normalize_gradient(row, C);
  }
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const kernels::WholeRows& whole) {
  const int64_t C = w.size(), grain = std::max<int64_t>(1, kGrain / C);
  const Write write = WriteOf(y, C);
  WithRows(x.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, x.size() / C, grain, [&](int64_t begin, int64_t end) {
      const Rows rows = RowsFrom(whole, C, epsilon, begin);
      for (int64_t r = begin; r < end; ++r) {
        const float rstd = ReciprocalRms(kernels, At<T>(x, r * C), C, rows, r - begin);
        kernels.normalize(At<T>(x, r * C), w.data<float>(), rstd, At<T>(y, r * C), write, C);
      }
    });
  });
}

void RowProducts(const kernels::RowProductsArgs& args, Context& ctx) {
  const auto [R, C] = Dims<2>(args.a);
  const float* w = args.w.defined() ? args.w.data<float>() : nullptr;
  WithRows(args.a.dtype(), [&, R = R, C = C](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, std::max<int64_t>(1, kGrain / C), [&](int64_t r, int64_t end) {
      for (; r < end; ++r) {
        const T *a = At<T>(args.a, r * C), *b = At<T>(args.b, r * C);
        args.sums.data<double>()[r] =
            w == nullptr ? kernels.dot(a, b, C) : kernels.weighted_dot(a, b, w, C);
      }
    });
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const int64_t C = args.w.size(), grain = std::max<int64_t>(1, kGrain / C);
  const Write write = WriteOf(args.dx, C, args.accumulate);
  WithRows(args.x.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, args.x.size() / C, grain, [&](int64_t r, int64_t end) {
      const RmsNormGradientRow<T> first = {.dy = At<T>(args.dy, r * C),
                                           .x = At<T>(args.x, r * C),
                                           .w = args.w.data<float>(),
                                           .rstd = 0,
                                           .along_x = 0,
                                           .dx = At<T>(args.dx, r * C),
                                           .write = write};
      InputGradient(kernels, first, RowsFrom(args.whole, C, args.epsilon, r), end - r, C);
    });
  });
}

void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx) {
  const int64_t C = args.dw.size(), R = args.x.size() / C;
  const int64_t block = std::max<int64_t>(1, kBlockElements / C);
  const int64_t num_blocks = (R + block - 1) / block;
  const Tensor partial = ctx.Zeros(DType::kF32, {num_blocks, C}, "rms_norm.partial");
  WithRows(args.x.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, block, [&](int64_t begin, int64_t end) {
      const Rows rows = RowsFrom(args.whole, C, args.epsilon, begin);
      float* sum = partial.data<float>() + begin / block * C;
      for (int64_t r = begin; r < end; ++r) {
        const T* x = At<T>(args.x, r * C);
        const float rstd = ReciprocalRms(kernels, x, C, rows, r - begin);
        kernels.add_scaled_products(At<T>(args.dy, r * C), x, rstd, sum, C);
      }
    });
  });
  float* dw = args.dw.data<float>();
  if (!args.accumulate) std::fill_n(dw, C, 0.0f);
  for (int64_t b = 0; b < num_blocks; ++b)
    for (int64_t c = 0; c < C; ++c) dw[c] += partial.data<float>()[b * C + c];
}

}  // namespace moebius::cpu
