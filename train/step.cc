#include "train/step.h"

#include <span>

#include "core/tensor/copy.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"
#include "optim/gradient_norm.h"
#include "train/batch_loader.h"

namespace moebius {

TrainStep::TrainStep(const Parts& parts)
    : parts_(parts),
      plan_(*MakePlan(parts.pipeline)),
      forward_plan_(*MakePlan(parts.pipeline, Passes::kForwardOnly)) {}

StepResult TrainStep::Run(const std::vector<MicroBatch>& micro_batches) {
  CHECK_EQ(std::ssize(micro_batches), parts_.pipeline.num_micro_batches);
  Transformer& model = parts_.model;
  const StepInputs step = Normalize(micro_batches);
  std::vector<MicroBatch> there;
  for (const MicroBatch& batch : micro_batches) there.push_back(ToDevice(batch, parts_.context));
  model.BeginStep();
  parts_.buckets.BeginStep(parts_.pipeline.num_micro_batches);
  CountExactly(there, step);

  const Tensor loss = ForwardBackward(there, step);
  ReduceGradients();
  const Tensor routing = model.SumRouting();
  Update(loss, routing);
  return Report(step.num_tokens, routing);
}

void TrainStep::ReduceGradients() {
  const PhaseScope phase = parts_.context.StartPhase("reduce gradients");
  parts_.buckets.Reduce();
  SumSharedTable();
}

void TrainStep::Update(const Tensor& loss, const Tensor& routing) {
  Context& context = parts_.context;
  const PhaseScope phase = context.StartPhase("update");
  kernels::DecideUpdate({.loss = loss,
                         .squares = SquaredGradientNorm(parts_.buckets, parts_.mesh, context),
                         .clip_norm = parts_.clip_norm,
                         .state = context.step_state()},
                        context);
  parts_.optimizer.Step();
  if (routing.defined()) parts_.model.FollowRouting(routing);
}

// Here, and on one rank only here, the host waits for a device.
StepResult TrainStep::Report(double num_tokens, const Tensor& routing) {
  Context& context = parts_.context;
  const Tensor state = ToHostLater(context.step_state(), context);
  const Tensor sums = routing.defined() ? ToHostLater(routing, context) : routing;
  context.Wait();
  StepResult result{.tokens = num_tokens, .routing = parts_.model.Summarize(sums)};
  if (context.device().is_meta()) return result;
  const double* const numbers = state.data<double>();
  result.loss = numbers[StepState::kLoss];
  result.gradient_norm = numbers[StepState::kGradientNorm];
  result.updated = numbers[StepState::kUpdates] != 0;
  return result;
}

// The sums of the global batch that losses are divided by, before the first forward.
StepInputs TrainStep::Normalize(const std::vector<MicroBatch>& micro_batches) {
  const PhaseScope phase = parts_.context.StartPhase("normalize");
  double totals[2] = {0, 0};  // loss weight, tokens
  for (const MicroBatch& batch : micro_batches) {
    const BatchTotals own = TotalsOf(batch);
    totals[0] += own.loss_weight;
    totals[1] += own.tokens;
  }
  parts_.mesh.group_over({Axis::kData, Axis::kContext}).AllReduce(std::span(totals)).Wait();
  for (const MicroBatch& batch : micro_batches) NormalizeLossWeights(totals[0], batch);
  return {.num_tokens = totals[1],
          .micro_batches_per_rank = static_cast<int64_t>(micro_batches.size()),
          .records_margins = records_margins_,
          .pass = Pass::kTrain,
          .seed = parts_.seed,
          .selection_hook = selection_hook_ ? &selection_hook_ : nullptr};
}

void TrainStep::CountExactly(const std::vector<MicroBatch>& micro_batches, StepInputs step) {
  const MoeSpec& moe = parts_.model.spec().moe;
  if (moe.global_counts != MoeSpec::GlobalCounts::kExact || !moe.needs_global_counts() ||
      micro_batches.size() == 1) {
    return;
  }
  const PhaseScope phase = parts_.context.StartPhase("count");
  step.pass = Pass::kCount;
  StageModel stage(parts_.model, micro_batches, step, nullptr);
  RunPlan(forward_plan_, stage);
  parts_.model.EndCountingPass();
}

// [1] F64: the loss of the global batch.
Tensor TrainStep::ForwardBackward(const std::vector<MicroBatch>& micro_batches,
                                  const StepInputs& step) {
  Context& context = parts_.context;
  const PhaseScope phase = context.StartPhase("forward and backward");
  const Tensor loss = context.Zeros(DType::kF64, {1}, "loss");
  StageModel stage(parts_.model, micro_batches, step, [&](Tape& tape, const Var& hidden, int m) {
    const Tensor own = parts_.model.Loss(tape, hidden, micro_batches[m]);
    kernels::Sum({.x = own, .sum = loss, .accumulate = true}, context);
  });
  RunPlan(plan_, stage);
  parts_.mesh.group_over({Axis::kPipeline, Axis::kData, Axis::kContext}).AllReduce(loss).Wait();
  return loss;
}

void TrainStep::RunPlan(const PipelinePlan& plan, StageModel& stage) {
  PipelineExecutor({.model = stage,
                    .stages = parts_.mesh.group(Axis::kPipeline),
                    .context = parts_.context,
                    .weights = parts_.weights,
                    .gradients = &parts_.buckets,
                    .observer = parts_.observer})
      .Run(plan);
}

// First and last stage add up the gradients of their uses of the table, to the same bits. It has
// the same bucket on both.
void TrainStep::SumSharedTable() {
  const Parameter* const table = parts_.model.shared_by_stages();
  if (table == nullptr) return;
  const Tensor own = parts_.buckets.Own(parts_.buckets.BucketOf(*table));
  const Tensor other = parts_.context.Empty(own.dtype(), own.shape(), "gradients.shared");
  Communicator& stages = parts_.mesh.group(Axis::kPipeline);
  const int other_stage = stages.rank() == 0 ? stages.size() - 1 : 0;
  Handle sent = stages.Send(own, other_stage);
  stages.Receive(other, other_stage).Wait();
  sent.Wait();
  kernels::Add(own, other, own, parts_.context);
}

}  // namespace moebius
