#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

bool IsPadding(const Tensor& document_ids, int64_t t) {
  return document_ids.defined() && document_ids.data<int32_t>()[t] < 0;
}

double LogSumExp(const double* z, int64_t E) {
  const double max = *std::max_element(z, z + E);
  double sum = 0;
  for (int64_t i = 0; i < E; ++i) sum += std::exp(z[i] - max);
  return max + std::log(sum);
}

double Normalizer(const kernels::BalanceLossOptions& options, const double* scores, int64_t E) {
  return options.normalize_scores ? std::accumulate(scores, scores + E, 1e-20) : 1;
}

}  // namespace

void BalanceLoss(const Tensor& scores, const kernels::BalanceLossOptions& options,
                 const Tensor& value, Context&) {
  const auto [T, E] = Dims<2>(scores);
  double total = 0;
  for (int64_t t = 0; t < T; ++t) {
    if (IsPadding(options.document_ids, t)) continue;
    const double* scores_t = scores.data<double>() + t * E;
    const double* f = options.fractions.data<double>() + t / options.tokens_per_group * E;
    total += std::inner_product(f, f + E, scores_t, 0.0) / Normalizer(options, scores_t, E);
  }
  value.data<double>()[0] = static_cast<double>(E) * total / options.divisor;
}

void BalanceLossGradient(const Tensor& scores, const kernels::BalanceLossOptions& options,
                         const kernels::RouterLossGradientArgs& gradient, Context&) {
  const auto [T, E] = Dims<2>(scores);
  if (!gradient.accumulate) std::fill_n(gradient.dx.data<double>(), gradient.dx.size(), 0.0);
  const double factor = gradient.coefficient * static_cast<double>(E) / options.divisor;
  for (int64_t t = 0; t < T; ++t) {
    if (IsPadding(options.document_ids, t)) continue;
    const double* scores_t = scores.data<double>() + t * E;
    const double* f = options.fractions.data<double>() + t / options.tokens_per_group * E;
    double* ds = gradient.dx.data<double>() + t * E;
    const double sum = Normalizer(options, scores_t, E);
    const double mean =
        options.normalize_scores ? std::inner_product(f, f + E, scores_t, 0.0) / sum : 0;
    for (int64_t i = 0; i < E; ++i) ds[i] += factor * (f[i] - mean) / sum;
  }
}

void ZLoss(const Tensor& logits, const kernels::ZLossOptions& options, const Tensor& value,
           Context&) {
  const auto [T, E] = Dims<2>(logits);
  double total = 0;
  for (int64_t t = 0; t < T; ++t) {
    if (IsPadding(options.document_ids, t)) continue;
    const double log_sum = LogSumExp(logits.data<double>() + t * E, E);
    total += log_sum * log_sum;
  }
  value.data<double>()[0] = total / options.divisor;
}

void ZLossGradient(const Tensor& logits, const kernels::ZLossOptions& options,
                   const kernels::RouterLossGradientArgs& gradient, Context&) {
  const auto [T, E] = Dims<2>(logits);
  if (!gradient.accumulate) std::fill_n(gradient.dx.data<double>(), gradient.dx.size(), 0.0);
  for (int64_t t = 0; t < T; ++t) {
    if (IsPadding(options.document_ids, t)) continue;
    const double* z = logits.data<double>() + t * E;
    double* dz = gradient.dx.data<double>() + t * E;
    const double log_sum = LogSumExp(z, E);
    for (int64_t i = 0; i < E; ++i)
      dz[i] += gradient.coefficient * 2 * log_sum * std::exp(z[i] - log_sum) / options.divisor;
  }
}

}  // namespace moebius::reference
