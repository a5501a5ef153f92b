#include <algorithm>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context&) {
  const auto [T, n] = Dims<2>(y);
  const int64_t N = x.shape()[1];
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t j = 0; j < n; ++j) {
      y.data<double>()[t * n + j] = x.data<double>()[t * N + begin + j];
    }
  }
}

void ColumnsGradient(const kernels::ColumnsGradientArgs& args, Context&) {
  const auto [T, n] = Dims<2>(args.dy);
  const int64_t N = args.dx.shape()[1];
  for (int64_t t = 0; t < T; ++t) {
    double* dx = args.dx.data<double>() + t * N;
    if (!args.accumulate) std::fill_n(dx, N, 0.0);
    for (int64_t j = 0; j < n; ++j) dx[args.begin + j] += args.dy.data<double>()[t * n + j];
  }
}

}  // namespace moebius::reference
