#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

using kernels::WholeRows;

// Of segment r of x, whose width is `width`: C, or that of a whole row of which x has a part.
double ReciprocalRms(const double* x, int64_t C, double epsilon, const WholeRows& whole,
                     int64_t r) {
  double sum = 0;
  for (int64_t c = 0; c < C; ++c) sum += x[c] * x[c];
  if (whole.width > 0) sum = whole.squares.data<double>()[r];
  const int64_t width = whole.width > 0 ? whole.width : C;
  return 1 / std::sqrt(sum / static_cast<double>(width) + epsilon);
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const WholeRows& whole) {
  const int64_t C = w.size();
  ctx.pool().ForRange(x.size() / C, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double *x_r = x.data<double>() + r * C, *w_ = w.data<double>();
      double* y_r = y.data<double>() + r * C;
      const double rstd = ReciprocalRms(x_r, C, epsilon, whole, r);
      for (int64_t c = 0; c < C; ++c) y_r[c] = x_r[c] * rstd * w_[c];
    }
  });
}

void RowProducts(const kernels::RowProductsArgs& args, Context& ctx) {
  const int64_t C = args.a.shape()[1];
  ctx.pool().For(args.a.shape()[0], [&](int64_t r) {
    const double *a = args.a.data<double>() + r * C, *b = args.b.data<double>() + r * C;
    double sum = 0;
    for (int64_t c = 0; c < C; ++c) {
      sum += a[c] * b[c] * (args.w.defined() ? args.w.data<double>()[c] : 1.0);
    }
    args.sums.data<double>()[r] = sum;
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const int64_t C = args.w.size(), width = args.whole.width > 0 ? args.whole.width : C;
  ctx.pool().ForRange(args.x.size() / C, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double *x = args.x.data<double>() + r * C, *dy = args.dy.data<double>() + r * C;
      const double* w = args.w.data<double>();
      double* dx = args.dx.data<double>() + r * C;
      const double rstd = ReciprocalRms(x, C, args.epsilon, args.whole, r);
      double inner = 0;
      for (int64_t c = 0; c < C; ++c) inner += dy[c] * w[c] * x[c];
      if (args.whole.width > 0) inner = args.whole.products.data<double>()[r];
      const double along_x = inner * rstd * rstd * rstd / static_cast<double>(width);
      for (int64_t c = 0; c < C; ++c) {
        const double g = dy[c] * w[c] * rstd - x[c] * along_x;
        dx[c] = args.accumulate ? dx[c] + g : g;
      }
    }
  });
}

void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context&) {
  const int64_t C = args.dw.size();
  double* dw = args.dw.data<double>();
  if (!args.accumulate) std::fill_n(dw, C, 0.0);
  for (int64_t r = 0; r < args.x.size() / C; ++r) {
    const double *x = args.x.data<double>() + r * C, *dy = args.dy.data<double>() + r * C;
    const double rstd = ReciprocalRms(x, C, args.epsilon, args.whole, r);
    for (int64_t c = 0; c < C; ++c) dw[c] += dy[c] * x[c] * rstd;
  }
}

}  // namespace moebius::reference
