// The learning rate as a function of the step.
#pragma once

#include <cstdint>

namespace moebius {

struct LearningRateSpec {
  enum class Shape { kConstant, kCosine, kWarmupStableDecay };
  Shape shape = Shape::kCosine;
  double peak = 0;
  double min_ratio = 0;      // of the peak, at the last step
  int64_t warmup_steps = 0;  // linear from peak / warmup_steps
  int64_t decay_steps = 0;   // of WSD (arXiv 2404.06395): linear at the end
  int64_t num_steps = 0;
};

// Of step 1 .. num_steps. Beyond the last step it stays where it ended.
double LearningRate(const LearningRateSpec& spec, int64_t step);

}  // namespace moebius
