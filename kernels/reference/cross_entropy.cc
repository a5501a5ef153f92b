#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, 4, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double* logits = args.logits.data<double>() + r * V;
      const double weight = args.weights.data<double>()[r];
      double& nll = args.nll.data<double>()[r];
      double* dlogits = args.dlogits.defined() ? args.dlogits.data<double>() + r * V : nullptr;
      if (weight == 0) {
        nll = 0;
        if (dlogits != nullptr) std::fill_n(dlogits, V, 0.0);
        continue;
      }
      const int32_t label = args.labels.data<int32_t>()[r];
      const double max = *std::max_element(logits, logits + V);
      double sum = 0;
      for (int64_t v = 0; v < V; ++v) sum += std::exp(logits[v] - max);
      const double log_sum = max + std::log(sum);
      nll = weight * (log_sum - logits[label]);
      if (dlogits == nullptr) continue;
      for (int64_t v = 0; v < V; ++v)
        dlogits[v] = weight * (std::exp(logits[v] - log_sum) - (v == label ? 1 : 0));
    }
  });
}

void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, 4, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double* logits = args.logits.data<double>() + r * V;
      const int64_t label = args.labels.data<int32_t>()[r] - args.first;
      const bool has_label = args.weights.data<double>()[r] != 0 && 0 <= label && label < V;
      const double max = *std::max_element(logits, logits + V);
      double sum = 0;
      for (int64_t v = 0; v < V; ++v) sum += std::exp(logits[v] - max);
      double* out = args.statistics.data<double>() + r * 3;
      out[0] = max, out[1] = sum, out[2] = has_label ? logits[label] : 0;
    }
  });
}

void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, 4, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double weight = args.weights.data<double>()[r];
      const double* row = args.statistics.data<double>() + r * 3;
      const double log_sum = row[0] + std::log(row[1]);
      args.nll.data<double>()[r] = weight == 0 ? 0 : weight * (log_sum - row[2]);
      if (!args.dlogits.defined()) continue;
      const double* logits = args.logits.data<double>() + r * V;
      double* dlogits = args.dlogits.data<double>() + r * V;
      const int64_t label = args.labels.data<int32_t>()[r] - args.first;
      for (int64_t v = 0; v < V; ++v) {
        const double p = std::exp(logits[v] - log_sum);
        dlogits[v] = weight == 0 ? 0 : weight * (p - (v == label ? 1 : 0));
      }
    }
  });
}

}  // namespace moebius::reference
