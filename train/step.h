// One optimizer step of one rank: its micro-batches forward and backward, reduction, clipping,
// update.
//
// Whether and how a gradient is applied is decided on the device. One rank waits for its device
// once a step, to report; several wait for what they exchange (parallel/staged_communicator.h), and
// for their experts' counts. So do a debug mode of routing and recorded margins.
#pragma once

#include <vector>

#include "core/tensor/context.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/plan.h"
#include "train/stage_model.h"

namespace moebius {

struct StepResult {
  double loss = 0;           // mean cross-entropy in nats over the global batch, before the update
  double tokens = 0;         // of the global batch, without padding
  double gradient_norm = 0;  // before clipping
  RoutingSummary routing = {};
  bool updated = true;  // false: loss or norm was NaN or infinite, and nothing was changed
};

class TrainStep {
 public:
  // All that is referred to outlives this object.
  struct Parts {
    Transformer& model;
    AdamW& optimizer;
    WeightSource& weights;
    GradientBuckets& buckets;
    Mesh& mesh;
    Context& context;
    PipelineSpec pipeline;
    double clip_norm = 0;  // 0: no clipping
    uint64_t seed = 0;     // of debug routing
    PlanObserver* observer = nullptr;
  };
  explicit TrainStep(const Parts& parts);

  void set_records_margins(bool records) { records_margins_ = records; }
  void set_selection_hook(SelectionHook hook) { selection_hook_ = std::move(hook); }

  // All ranks call it together, each with its own micro-batches, as many on every rank as the
  // pipeline says (those of a rank without work hold no token); the stages of a pipeline have the
  // same. They are the host's (MakeMicroBatch). Context::BeginStep has said
  // step and learning rate.
  StepResult Run(const std::vector<MicroBatch>& micro_batches);

 private:
  StepInputs Normalize(const std::vector<MicroBatch>& micro_batches);
  void CountExactly(const std::vector<MicroBatch>& micro_batches, StepInputs step);
  Tensor ForwardBackward(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);
  void RunPlan(const PipelinePlan& plan, StageModel& stage);
  void ReduceGradients();
  void SumSharedTable();
  void Update(const Tensor& loss, const Tensor& routing);
  StepResult Report(double num_tokens, const Tensor& routing);

  const Parts parts_;
  const PipelinePlan plan_;
  const PipelinePlan forward_plan_;
  bool records_margins_ = false;
  SelectionHook selection_hook_;
};

}  // namespace moebius
