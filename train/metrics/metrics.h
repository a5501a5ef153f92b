// What a run reports about itself (docs/formats/metrics.md), as plain values.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace moebius {

struct LayerLoad {
  int layer = 0;
  std::vector<int64_t> tokens;  // [E] token-expert pairs of the global batch
};

struct StepMetrics {
  int64_t step = 0;
  double loss = 0;
  double balance_loss = 0;
  double z_loss = 0;
  double grad_norm = 0;
  double lr = 0;
  int64_t tokens = 0;
  double tokens_per_second = 0;
  double step_ms = 0;
  double mfu = 0;
  int64_t peak_bytes = 0;       // of the device
  int64_t host_peak_bytes = 0;  // of the host, beside that
  double checkpoint_stall_ms = 0;
  int64_t retries = 0;
  std::vector<LayerLoad> expert_load = {};
};

// The largest load over the mean load of a layer's experts, of the worst layer. 0 without loads.
double MaxOverMeanLoad(const std::vector<LayerLoad>& loads);

// The numbers of a step by key, in the order of the format, without `step` and `expert_load`.
std::vector<std::pair<std::string, double>> Scalars(const StepMetrics& metrics);

struct EvalMetrics {
  int64_t step = 0;
  std::string domain;
  double loss = 0;
  double bits_per_byte = 0;
};

}  // namespace moebius
