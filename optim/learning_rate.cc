#include "optim/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moebius {
namespace {

// 1 at the beginning of the decay, 0 at its end.
double DecayShape(const LearningRateSpec& spec, double progress) {
  if (spec.shape == LearningRateSpec::Shape::kCosine) {
    return 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  return 1 - progress;
}

}  // namespace

double LearningRate(const LearningRateSpec& spec, int64_t step) {
  if (step < spec.warmup_steps) {
    return spec.peak * static_cast<double>(step) / static_cast<double>(spec.warmup_steps);
  }
  if (spec.shape == LearningRateSpec::Shape::kConstant) return spec.peak;
  const int64_t first = spec.shape == LearningRateSpec::Shape::kCosine
                            ? spec.warmup_steps
                            : std::max(spec.warmup_steps, spec.num_steps - spec.decay_steps);
  if (step <= first) return spec.peak;
  const double length = static_cast<double>(std::max<int64_t>(spec.num_steps - first, 1));
  const double progress = std::min(1.0, static_cast<double>(step - first) / length);
  return spec.peak * (spec.min_ratio + (1 - spec.min_ratio) * DecayShape(spec, progress));
}

}  // namespace moebius
