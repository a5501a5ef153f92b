// One optimizer step of one rank: its micro-batches forward and backward, reduction, clipping,
// update.
//
// Whether and how a gradient is applied is decided on the device. One rank waits for its device
// once a step, to report, so that it can be given a steady step as one piece of work
// (step_replayer.h); several wait for what they exchange (parallel/staged_communicator.h), and for
// their experts' counts, unless messages have a fixed length. So do a debug mode of routing and
// recorded margins.
//
// Where messages of a fixed length lacked room for rows, on any rank and in any layer, nothing is
// updated either: every rank learns it from its report, takes the same step again with twice the
// room, and goes on with that. What was discarded leaves no trace: results are those of the exact
// exchange, bit by bit, however often that happens. So no checkpoint holds the room: a run that
// resumes finds it again. A step that is not finite is told of once its rows have room.
#pragma once

#include <optional>
#include <vector>

#include "core/tensor/context.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/plan.h"
#include "train/stage_model.h"
#include "train/step_replayer.h"

namespace moebius {

struct StepResult {
  double loss = 0;           // mean cross-entropy in nats over the global batch, before the update
  double tokens = 0;         // of the global batch, without padding
  double gradient_norm = 0;  // before clipping
  RoutingSummary routing = {};
  bool updated = true;  // false: loss or norm was NaN or infinite, and nothing was changed
  // Attempts that lacked room and were discarded, and what the room was, by
  // parallel.exchange_capacity, before the first of them and behind the last one.
  int64_t num_retries = 0;
  double old_exchange_capacity = 0, exchange_capacity = 0;
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
    double clip_norm = 0;          // 0: no clipping
    uint64_t seed = 0;             // of debug routing
    double exchange_capacity = 0;  // at first (ParallelConfig)
    PlanObserver* observer = nullptr;
    bool replays_steps = true;  // where nobody watches and nothing is waited for
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
  bool CanReplay(const std::vector<MicroBatch>& micro_batches) const;
  Tensor Compute(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);
  StepInputs Normalize(const std::vector<MicroBatch>& micro_batches);
  int64_t MaxTokens(const std::vector<MicroBatch>& micro_batches);
  StepResult RunUntilRowsFit(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);
  // Nothing where rows lacked room.
  std::optional<StepResult> Attempt(const std::vector<MicroBatch>& micro_batches, StepInputs step);
  void CountExactly(const std::vector<MicroBatch>& micro_batches, StepInputs step);
  Tensor ForwardBackward(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);
  void RunPlan(const PipelinePlan& plan, StageModel& stage);
  void ReduceGradients();
  void SumSharedTable();
  void Update(const Tensor& loss, const Tensor& routing, const Tensor& overflow);
  std::optional<StepResult> Report(const StepInputs& step, const Tensor& routing);

  const Parts parts_;
  const PipelinePlan plan_;
  const PipelinePlan forward_plan_;
  StepReplayer replayer_;
  double exchange_capacity_;  // 0: messages have the length of what there is
  bool records_margins_ = false;
  SelectionHook selection_hook_;
};

}  // namespace moebius
