#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

double ReciprocalRms(const double* x, int64_t C, double epsilon) {
  double sum = 0;
  for (int64_t c = 0; c < C; ++c) sum += x[c] * x[c];
  return 1 / std::sqrt(sum / static_cast<double>(C) + epsilon);
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx) {
  const int64_t C = w.size();
  ctx.pool().ForRange(x.size() / C, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double *x_r = x.data<double>() + r * C, *w_ = w.data<double>();
      double* y_r = y.data<double>() + r * C;
      const double rstd = ReciprocalRms(x_r, C, epsilon);
      for (int64_t c = 0; c < C; ++c) y_r[c] = x_r[c] * rstd * w_[c];
    }
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const int64_t C = args.w.size();
  ctx.pool().ForRange(args.x.size() / C, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double *x = args.x.data<double>() + r * C, *dy = args.dy.data<double>() + r * C;
      const double* w = args.w.data<double>();
      double* dx = args.dx.data<double>() + r * C;
      const double rstd = ReciprocalRms(x, C, args.epsilon);
      double inner = 0;
      for (int64_t c = 0; c < C; ++c) inner += dy[c] * w[c] * x[c];
      const double along_x = inner * rstd * rstd * rstd / static_cast<double>(C);
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
    const double rstd = ReciprocalRms(x, C, args.epsilon);
    for (int64_t c = 0; c < C; ++c) dw[c] += dy[c] * x[c] * rstd;
  }
}

}  // namespace moebius::reference
