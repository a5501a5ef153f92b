// Steps of one rank on an accelerator, each of which the host gives it as one piece of work: a step
// that is like the one before it is recorded, and given again ("replayed") as long as steps are
// like it. That saves the host's time for a step's thousands of kernels, and the device's where it
// would wait for the host.
//
// Kernels are told the same in every replay; what changes from step to step lies on the device:
// tokens, the numbers of StepState, parameters and their moments. So a step is like another where
// all that the host says by value is the same: the sizes of the micro-batches and their numbers of
// tokens. Another step is run kernel by kernel, and replays go on behind it.
//
// Recorded work goes on using the memory that the step was handed out. The arena hands that memory
// out to others between steps; where somebody has some of it when a step begins, or where
// parameters, gradients, images or buffers stand elsewhere, the step is recorded anew. Held are the
// tensors of the micro-batches and what outlives the step: a recording takes no memory beside that.
//
// On the host a replay leaves what the recorded step has left: new versions of parameters and of
// the images that the update writes. Images that are stale before a step are made anew outside of
// what is recorded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/tensor/context.h"
#include "model/transformer.h"

namespace moebius {

class StepReplayer {
 public:
  // The work of a whole step of these micro-batches of the device, from the first kernel to the
  // last, in which nothing is waited for. What it returns is on the device.
  using Compute = std::function<Tensor(const std::vector<MicroBatch>& micro_batches)>;

  // Both outlive this.
  StepReplayer(Transformer& model, Context& context);
  ~StepReplayer();

  // What `compute` gives for `micro_batches`, which are the host's (MakeMicroBatch). Valid until
  // the next call. REQUIRES: an accelerator and one rank; `compute` does the same in all calls but
  // for step.num_tokens and step.micro_batches_per_rank; the step before is done (Context::Wait).
  Tensor Run(const std::vector<MicroBatch>& micro_batches, const StepInputs& step,
             const Compute& compute);

 private:
  struct Recording;

  bool IsIntact(const Recording& recording) const;
  Tensor Record(const std::vector<MicroBatch>& micro_batches, const Compute& compute);
  Tensor Replay(const std::vector<MicroBatch>& micro_batches);

  Transformer& model_;
  Context& context_;
  std::vector<int64_t> key_;  // of the last step
  std::unique_ptr<Recording> recording_;
};

}  // namespace moebius
