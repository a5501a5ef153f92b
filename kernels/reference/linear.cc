#include "kernels/reference/linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace moebius::reference {
namespace {

// Those of `rows` that have a matrix.
int64_t NumRows(const Tensor& offsets, int64_t rows) {
  return offsets.defined() ? offsets.span<int32_t>().back() : rows;
}

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

double Logistic(double z) { return 1 / (1 + std::exp(-z)); }

// Row r of a product's operand.
const double* RowOf(const Tensor& x, const Tensor& rows, int64_t r) {
  return x.data<double>() + (rows.defined() ? rows.data<int32_t>()[r] : r) * x.shape()[1];
}

}  // namespace

void Linear(const kernels::LinearArgs& args, Context& context) {
  const int64_t N = args.y.shape()[1], K = args.x.shape()[1];
  const int64_t R = NumRows(args.offsets, args.y.shape()[0]);
  const std::vector<int64_t> group = GroupOfRow(args.offsets, R);
  context.pool().For(R, [&](int64_t r) {
    const double* x = RowOf(args.x, args.rows, r);
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
    if (!args.h.defined()) return;
    const double* gate = args.gate.data<double>() + r * N;
    double* h = args.h.data<double>() + r * N;
    for (int64_t n = 0; n < N; ++n) h[n] = gate[n] * Logistic(gate[n]) * y[n];
  });
}

void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& context) {
  const int64_t K = args.dx.shape()[1], N = args.dy.shape()[1];
  const int64_t R = NumRows(args.offsets, args.dx.shape()[0]);
  const std::vector<int64_t> group = GroupOfRow(args.offsets, R);
  context.pool().For(R, [&](int64_t r) {
    const double* dy = RowOf(args.dy, args.rows, r);
    const double* w = args.w.data<double>() + group[r] * N * K;
    double* dx = args.dx.data<double>() + r * K;
    if (!args.accumulate) std::fill_n(dx, K, 0.0);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t k = 0; k < K; ++k) dx[k] += dy[n] * w[n * K + k];
    }
  });
}

void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& context) {
  const int64_t F = args.gate.shape()[1];
  const Tensor product = context.Empty(DType::kF64, args.gate.shape(), "linear.dx");
  LinearInputGradient(
      {.dy = args.dy, .w = args.w, .offsets = args.offsets, .dx = product, .rows = args.rows},
      context);
  context.pool().For(NumRows(args.offsets, args.gate.shape()[0]), [&](int64_t r) {
    const double weight = args.weights.defined() ? args.weights.data<double>()[r] : 1;
    double inner = 0;
    for (int64_t i = r * F; i < (r + 1) * F; ++i) {
      const double g = args.gate.data<double>()[i], u = args.up.data<double>()[i];
      const double p = product.data<double>()[i], s = Logistic(g);
      args.dgate.data<double>()[i] = weight * p * u * s * (1 + g * (1 - s));
      args.dup.data<double>()[i] = weight * p * g * s;
      args.h.data<double>()[i] = weight * g * s * u;
      inner += p * g * s * u;
    }
    if (args.dweights.defined()) args.dweights.data<double>()[r] = inner;
  });
}

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context) {
  const int64_t N = args.dy.shape()[1], K = args.x.shape()[1];
  const int64_t R = args.dy_rows.defined() ? args.dy_rows.size() : args.dy.shape()[0];
  const int64_t e = args.offsets.defined() ? args.offsets.size() - 1 : 1;
  context.pool().For(e * N, [&](int64_t i) {
    const int64_t j = i / N, n = i % N;
    const int64_t begin = args.offsets.defined() ? args.offsets.data<int32_t>()[j] : 0;
    const int64_t end = args.offsets.defined() ? args.offsets.data<int32_t>()[j + 1] : R;
    double* dw = args.dw.data<double>() + i * K;
    if (!args.accumulate) std::fill_n(dw, K, 0.0);
    for (int64_t r = begin; r < end; ++r) {
      const double* x = RowOf(args.x, args.x_rows, r);
      const double dy = RowOf(args.dy, args.dy_rows, r)[n];
      for (int64_t k = 0; k < K; ++k) dw[k] += dy * x[k];
    }
  });
}

void LinearSum(const kernels::LinearSumArgs& args, Context& context) {
  const auto [R, K] = Dims<2>(args.x);
  const auto [T, N] = Dims<2>(args.y);
  const std::vector<int64_t> group = GroupOfRow(args.offsets, R);
  const bool transposed = args.format == WeightFormat::kPackedTransposed;
  const int64_t of_output = transposed ? 1 : K, of_input = transposed ? N : 1;  // steps in w
  context.pool().For(N, [&, R = R, K = K, T = T, N = N](int64_t n) {
    double* y = args.y.data<double>() + n;
    for (int64_t t = 0; t < T && !args.accumulate; ++t) y[t * N] = 0;
    for (int64_t r = 0; r < R; ++r) {
      const double* x = args.x.data<double>() + r * K;
      const double* w = args.w.data<double>() + group[r] * N * K + n * of_output;
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += w[k * of_input] * x[k];
      const double weight = args.weights.defined() ? args.weights.data<double>()[r] : 1;
      y[args.rows.data<int32_t>()[r] * N] += weight * sum;
    }
  });
}

}  // namespace moebius::reference
