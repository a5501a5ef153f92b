#include "kernels/reference/linear.h"

#include <algorithm>
#include <vector>

namespace moebius::reference {
namespace {

// The group of each row.
std::vector<int64_t> GroupOfRow(const Tensor& offsets, int64_t rows) {
  std::vector<int64_t> group(static_cast<size_t>(rows), 0);
  if (!offsets.defined()) return group;
  const auto begin = offsets.span<int32_t>();
  for (size_t j = 0; j + 1 < begin.size(); ++j) {
    std::fill(group.begin() + begin[j], group.begin() + begin[j + 1], static_cast<int64_t>(j));
  }
  return group;
}

}  // namespace

void Linear(const kernels::LinearArgs& args, Context& context) {
  const auto [R, K] = Dims<2>(args.x);
  const int64_t N = args.y.shape()[1];
  const std::vector<int64_t> group = GroupOfRow(args.offsets, R);
  context.pool().For(R, [&, K = K](int64_t r) {
    const double* x = args.x.data<double>() + r * K;
    const double* w = args.w.data<double>() + group[r] * N * K;
    double* y = args.y.data<double>() + r * N;
    constexpr int64_t kBlock = 8;  // sums at a time, so that x is read once for eight
    for (int64_t n = 0; n < N; n += kBlock) {
      const int64_t block = std::min(kBlock, N - n);
      double sum[kBlock] = {};
      for (int64_t k = 0; k < K; ++k) {
        for (int64_t i = 0; i < block; ++i) sum[i] += w[(n + i) * K + k] * x[k];
      }
      for (int64_t i = 0; i < block; ++i) y[n + i] = (args.accumulate ? y[n + i] : 0) + sum[i];
    }
  });
}

void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& context) {
  const auto [R, N] = Dims<2>(args.dy);
  const int64_t K = args.dx.shape()[1];
  const std::vector<int64_t> group = GroupOfRow(args.offsets, R);
  context.pool().For(R, [&, N = N](int64_t r) {
    const double* dy = args.dy.data<double>() + r * N;
    const double* w = args.w.data<double>() + group[r] * N * K;
    double* dx = args.dx.data<double>() + r * K;
    if (!args.accumulate) std::fill_n(dx, K, 0.0);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t k = 0; k < K; ++k) dx[k] += dy[n] * w[n * K + k];
    }
  });
}

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context) {
  const auto [R, N] = Dims<2>(args.dy);
  const auto [R_x, K] = Dims<2>(args.x);
  const int64_t e = args.offsets.defined() ? args.offsets.size() - 1 : 1;
  const double *all_x = args.x.data<double>(), *all_dy = args.dy.data<double>();
  context.pool().For(e * N, [&, R = R, N = N, K = K](int64_t i) {
    const int64_t j = i / N, n = i % N;
    const int64_t begin = args.offsets.defined() ? args.offsets.data<int32_t>()[j] : 0;
    const int64_t end = args.offsets.defined() ? args.offsets.data<int32_t>()[j + 1] : R;
    double* dw = args.dw.data<double>() + i * K;
    if (!args.accumulate) std::fill_n(dw, K, 0.0);
    for (int64_t r = begin; r < end; ++r) {
      const double* x = all_x + r * K;
      const double dy = all_dy[r * N + n];
      for (int64_t k = 0; k < K; ++k) dw[k] += dy * x[k];
    }
  });
}

}  // namespace moebius::reference
