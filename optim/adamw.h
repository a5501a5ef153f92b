// AdamW (arXiv 1711.05101) over one rank's share of the parameters. It knows values, gradients and
// placements; no tape, no layer.
#pragma once

#include <cstdint>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"

namespace moebius {

struct AdamWSpec {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // of parameters that want it, times the learning rate
};

class AdamW {
 public:
  // First and second moment of a parameter, in its shape and master dtype.
  struct State {
    Parameter* parameter;
    Tensor m;
    Tensor v;
  };

  // Moments start at zero. The context outlives the optimizer.
  AdamW(const AdamWSpec& spec, const std::vector<Parameter*>& parameters, Context& context);

  // One update with context.step()'s learning rate, step (for the bias correction) and clip scale.
  // REQUIRES: every gradient is reduced (GradientBuckets::Reduce).
  void Step();

  std::vector<State>& states() { return states_; }

 private:
  const AdamWSpec spec_;
  Context& context_;
  std::vector<State> states_;
};

}  // namespace moebius
