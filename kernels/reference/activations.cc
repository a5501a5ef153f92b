#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

constexpr int64_t kGrain = 4096;  // elements

double Logistic(double z) { return 1 / (1 + std::exp(-z)); }

void Put(double& slot, double value, bool accumulate) { slot = accumulate ? slot + value : value; }

}  // namespace

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx) {
  const auto g = gate.span<double>(), u = up.span<double>(), out = h.span<double>();
  ctx.pool().ForRange(h.size(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = g[i] * Logistic(g[i]) * u[i];
  });
}

void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx) {
  const auto g = args.gate.span<double>(), u = args.up.span<double>(), dh = args.dh.span<double>();
  const auto dg = args.dgate.span<double>(), du = args.dup.span<double>();
  ctx.pool().ForRange(args.dh.size(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double s = Logistic(g[i]);
      Put(dg[i], dh[i] * u[i] * s * (1 + g[i] * (1 - s)), args.accumulate_dgate);
      Put(du[i], dh[i] * g[i] * s, args.accumulate_dup);
    }
  });
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [T, E] = Dims<2>(z);
  ctx.pool().ForRange(T, 64, [&, E = E](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double* z_t = z.data<double>() + t * E;
      double* p_t = p.data<double>() + t * E;
      const double max = *std::max_element(z_t, z_t + E);
      double sum = 0;
      for (int64_t i = 0; i < E; ++i) sum += p_t[i] = std::exp(z_t[i] - max);
      for (int64_t i = 0; i < E; ++i) p_t[i] /= sum;
    }
  });
}

void SoftmaxGradient(const kernels::ScoreGradientArgs& args, Context& ctx) {
  const auto [T, E] = Dims<2>(args.y);
  ctx.pool().ForRange(T, 64, [&, E = E](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double *p = args.y.data<double>() + t * E, *dp = args.dy.data<double>() + t * E;
      double* dz = args.dz.data<double>() + t * E;
      double inner = 0;
      for (int64_t i = 0; i < E; ++i) inner += p[i] * dp[i];
      for (int64_t i = 0; i < E; ++i) Put(dz[i], p[i] * (dp[i] - inner), args.accumulate);
    }
  });
}

void Sigmoid(const Tensor& z, const Tensor& s, Context&) {
  std::ranges::transform(z.span<double>(), s.data<double>(), Logistic);
}

void SigmoidGradient(const kernels::ScoreGradientArgs& args, Context&) {
  const auto s = args.y.span<double>(), ds = args.dy.span<double>(), dz = args.dz.span<double>();
  for (size_t i = 0; i < s.size(); ++i) Put(dz[i], ds[i] * s[i] * (1 - s[i]), args.accumulate);
}

}  // namespace moebius::reference
