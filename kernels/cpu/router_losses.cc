#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 64;  // tokens of a task, and of a partial sum

bool IsPadding(const Tensor& document_ids, int64_t t) {
  return document_ids.defined() && document_ids.data<int32_t>()[t] < 0;
}

MOEBIUS_CLONES float Sum(const float* x, int64_t n) {
  float sum = 1e-20f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

MOEBIUS_CLONES float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

float LogSumExp(const float* z, int64_t n) {
  const ScoreKernels& scores = Simd().scores;
  const float max = scores.max(z, n);
  return max + std::log(scores.exp_sum(z, max, nullptr, n));
}

// The sum of fn(t) over tokens that are not padding.
template <class Fn>
double SumOverTokens(int64_t T, const Tensor& document_ids, Context& ctx, const Fn& fn) {
  const Tensor partial =
      ctx.Empty(DType::kF64, {(T + kGrain - 1) / kGrain}, "router_losses.partial");
  ctx.pool().ForRange(T, kGrain, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t t = begin; t < end; ++t)
      if (!IsPadding(document_ids, t)) sum += fn(t);
    partial.data<double>()[begin / kGrain] = sum;
  });
  double total = 0;
  for (const double block : partial.span<double>()) total += block;
  return total;
}

// Calls fn(t, dx of t) for tokens that are not padding, with dx ready to be added to.
template <class Fn>
void ForGradientRows(const Tensor& document_ids, const kernels::RouterLossGradientArgs& gradient,
                     Context& ctx, const Fn& fn) {
  const auto [T, E] = Dims<2>(gradient.dx);
  ctx.pool().ForRange(T, kGrain, [&, E = E](int64_t begin, int64_t end) {
    float* dx = gradient.dx.data<float>();
    if (!gradient.accumulate) std::fill_n(dx + begin * E, (end - begin) * E, 0.0f);
    for (int64_t t = begin; t < end; ++t)
      if (!IsPadding(document_ids, t)) fn(t, dx + t * E);
  });
}

}  // namespace

void BalanceLoss(const Tensor& scores, const kernels::BalanceLossOptions& options,
                 const Tensor& value, Context& ctx) {
  const auto [T, E] = Dims<2>(scores);
  const double total = SumOverTokens(T, options.document_ids, ctx, [&, E = E](int64_t t) -> double {
    const float* scores_t = scores.data<float>() + t * E;
    const float* f = options.fractions.data<float>() + t / options.tokens_per_group * E;
    return Dot(f, scores_t, E) / (options.normalize_scores ? Sum(scores_t, E) : 1.0f);
  });
  value.data<double>()[0] = static_cast<double>(E) * total / options.divisor;
}

void BalanceLossGradient(const Tensor& scores, const kernels::BalanceLossOptions& options,
                         const kernels::RouterLossGradientArgs& gradient, Context& ctx) {
  const int64_t E = scores.shape()[1];
  const double factor = gradient.coefficient * static_cast<double>(E) / options.divisor;
  ForGradientRows(options.document_ids, gradient, ctx, [&](int64_t t, float* ds) {
    const float* scores_t = scores.data<float>() + t * E;
    const float* f = options.fractions.data<float>() + t / options.tokens_per_group * E;
    const float sum = options.normalize_scores ? Sum(scores_t, E) : 1.0f;
    const float mean = options.normalize_scores ? Dot(f, scores_t, E) / sum : 0.0f;
    const float factor_t = static_cast<float>(factor) / sum;
    for (int64_t i = 0; i < E; ++i) ds[i] += factor_t * (f[i] - mean);
  });
}

void ZLoss(const Tensor& logits, const kernels::ZLossOptions& options, const Tensor& value,
           Context& ctx) {
  const auto [T, E] = Dims<2>(logits);
  const double total = SumOverTokens(T, options.document_ids, ctx, [&, E = E](int64_t t) {
    const double log_sum = LogSumExp(logits.data<float>() + t * E, E);
    return log_sum * log_sum;
  });
  value.data<double>()[0] = total / options.divisor;
}

void ZLossGradient(const Tensor& logits, const kernels::ZLossOptions& options,
                   const kernels::RouterLossGradientArgs& gradient, Context& ctx) {
  const int64_t E = logits.shape()[1];
  const double factor = 2 * gradient.coefficient / options.divisor;
  ForGradientRows(options.document_ids, gradient, ctx, [&](int64_t t, float* dz) {
    const float* z = logits.data<float>() + t * E;
    const float log_sum = LogSumExp(z, E);
    const float factor_t = static_cast<float>(factor) * log_sum;
    for (int64_t i = 0; i < E; ++i) dz[i] += factor_t * Exp(z[i] - log_sum);
  });
}

}  // namespace moebius::cpu
