#include "train/metrics/metrics.h"

#include <algorithm>
#include <numeric>

namespace moebius {

double MaxOverMeanLoad(const std::vector<LayerLoad>& loads) {
  double worst = 0;
  for (const LayerLoad& load : loads) {
    const auto sum = std::accumulate(load.tokens.begin(), load.tokens.end(), int64_t{0});
    if (sum == 0) continue;
    const double mean = static_cast<double>(sum) / static_cast<double>(load.tokens.size());
    worst = std::max(worst, static_cast<double>(*std::ranges::max_element(load.tokens)) / mean);
  }
  return worst;
}

std::vector<std::pair<std::string, double>> Scalars(const StepMetrics& metrics) {
  return {{"loss", metrics.loss},
          {"balance_loss", metrics.balance_loss},
          {"z_loss", metrics.z_loss},
          {"grad_norm", metrics.grad_norm},
          {"lr", metrics.lr},
          {"tokens", static_cast<double>(metrics.tokens)},
          {"tokens_per_second", metrics.tokens_per_second},
          {"step_ms", metrics.step_ms},
          {"mfu", metrics.mfu},
          {"peak_bytes", static_cast<double>(metrics.peak_bytes)},
          {"host_peak_bytes", static_cast<double>(metrics.host_peak_bytes)},
          {"checkpoint_stall_ms", metrics.checkpoint_stall_ms},
          {"retries", static_cast<double>(metrics.retries)},
          {"expert_load_max_over_mean", MaxOverMeanLoad(metrics.expert_load)}};
}

}  // namespace moebius
