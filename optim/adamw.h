// AdamW (arXiv 1711.05101) over what one rank updates of the parameters: all of its own, or its
// share of each bucket where the optimizer is sharded (ZeRO stages 1 to 3). It knows values,
// gradients and placements; no tape, no layer.
#pragma once

#include <cstdint>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"
#include "kernels/adamw.h"
#include "optim/moments.h"
#include "parallel/gradient_buckets.h"
#include "parallel/value_buckets.h"

namespace moebius {

struct AdamWSpec {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // of parameters that want it, times the learning rate
};

class AdamW {
 public:
  // Elements [begin, end) of a parameter's local tensor, which this rank updates: all of them, or
  // what its share of a bucket holds, perhaps none. Tensors are flat, in the master dtype; m and v
  // are the first and second moment, in their tier (moments.h).
  struct State {
    Parameter* parameter = nullptr;
    int64_t begin = 0;
    int64_t end = 0;
    bool first_replica = true;  // false: another rank updates the same elements and speaks for them
    Tensor value;
    Tensor m;
    Tensor v;
  };

  // Moments start at zero. All outlive the optimizer.
  AdamW(const AdamWSpec& spec, GradientBuckets& gradients, ValueBuckets& values, Context& context,
        const Moments::Options& moments = {});

  // One update with the learning rate, step (for the bias correction) and clip scale of
  // context.step_state(), which may also say that nothing is updated.
  // The images of a weight that are current are written with it where this rank has and updates it
  // whole, in one piece; all others are stale then. A sharded optimizer fetches what the other
  // ranks have updated. REQUIRES: every gradient is reduced (GradientBuckets::Reduce).
  void Step();

  std::vector<State>& states() { return states_; }

  // Step gives work to streams beside the accelerator's.
  bool uses_side_streams() const { return moments_.use_side_streams(); }

 private:
  struct Place {  // of a state
    size_t bucket;
    int64_t offset;  // within what this rank owns of the bucket
  };

  void AddStates(size_t bucket);
  void Update(const State& state, const Place& place, const Tensor& gradients,
              const Moments::Piece& piece);
  void RaiseVersion(const State& state);  // and those of the images that were written
  std::vector<kernels::AdamWArgs::Image> ImagesToUpdate(const State& state) const;

  const AdamWSpec spec_;
  GradientBuckets& gradients_;
  ValueBuckets& values_;
  Context& context_;
  Moments moments_;
  std::vector<State> states_;  // bucket by bucket
  std::vector<Place> places_;
};

}  // namespace moebius
