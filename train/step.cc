#include "train/step.h"

#include <algorithm>
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
      forward_plan_(*MakePlan(parts.pipeline, Passes::kForwardOnly)),
      replayer_(parts.model, parts.context),
      exchange_capacity_(parts.exchange_capacity) {}

StepResult TrainStep::Run(const std::vector<MicroBatch>& micro_batches) {
  CHECK_EQ(std::ssize(micro_batches), parts_.pipeline.num_micro_batches);
  const StepInputs step = Normalize(micro_batches);
  if (CanReplay(micro_batches)) {
    const auto compute = [&](const std::vector<MicroBatch>& there) { return Compute(there, step); };
    return *Report(step, replayer_.Run(micro_batches, step, compute));
  }
  return RunUntilRowsFit(ToDevice(micro_batches, parts_.context), step);
}

StepResult TrainStep::RunUntilRowsFit(const std::vector<MicroBatch>& micro_batches,
                                      const StepInputs& step) {
  const double old_capacity = exchange_capacity_;
  const double enough = parts_.mesh.position().size_of(Axis::kExpert);  // all rows go to one rank
  int64_t num_retries = 0;
  std::optional<StepResult> result = Attempt(micro_batches, step);
  for (; !result; ++num_retries, result = Attempt(micro_batches, step)) {
    CHECK_LT(exchange_capacity_, enough) << "more rows than there can be";
    exchange_capacity_ = std::min(2 * exchange_capacity_, enough);
  }
  result->num_retries = num_retries;
  result->old_exchange_capacity = old_capacity;
  result->exchange_capacity = exchange_capacity_;
  return *result;
}

std::optional<StepResult> TrainStep::Attempt(const std::vector<MicroBatch>& micro_batches,
                                             StepInputs step) {
  if (step.dispatch.max_tokens > 0) {
    step.dispatch.capacity = exchange_capacity_;
    step.dispatch.overflow = parts_.context.Zeros(DType::kF64, {1}, "dispatch.overflow");
  }
  return Report(step, Compute(micro_batches, step));
}

// The most tokens of a shard on any rank; 0 where exchanges are exact.
int64_t TrainStep::MaxTokens(const std::vector<MicroBatch>& micro_batches) {
  Mesh& mesh = parts_.mesh;
  const bool rows_travel = mesh.group_over({Axis::kExpert, Axis::kExpertTensor}).size() > 1;
  if (exchange_capacity_ == 0 || !rows_travel) return 0;
  int64_t most = 0;
  for (const MicroBatch& batch : micro_batches) {
    most = std::max(most, batch.num_sequences * batch.shard.positions);
  }
  mesh.world().AllReduceMax(std::span(&most, 1)).Wait();
  return most;
}

// Whether the host decides and waits for nothing between the first kernel and the last, and no
// stream has work beside them.
bool TrainStep::CanReplay(const std::vector<MicroBatch>& micro_batches) const {
  const Context& context = parts_.context;
  const bool is_one_device = context.accelerator() != nullptr && parts_.mesh.world().size() == 1;
  const bool is_watched = context.is_watched() || parts_.observer != nullptr || records_margins_ ||
                          selection_hook_ != nullptr;
  const bool is_routed_by_host =
      parts_.model.spec().moe.debug_routing != MoeSpec::DebugRouting::kNone ||
      std::ranges::any_of(micro_batches,
                          [](const MicroBatch& batch) { return batch.shard.num_tokens < 0; });
  return parts_.replays_steps && is_one_device && !is_watched && !is_routed_by_host &&
         !parts_.optimizer.uses_side_streams();
}

// All the work of a step. The sums of its routing.
Tensor TrainStep::Compute(const std::vector<MicroBatch>& micro_batches, const StepInputs& step) {
  parts_.model.BeginStep();
  parts_.buckets.BeginStep(parts_.pipeline.num_micro_batches);
  CountExactly(micro_batches, step);
  const Tensor loss = ForwardBackward(micro_batches, step);
  ReduceGradients();
  const Tensor routing = parts_.model.SumRouting();
  Update(loss, routing, step.dispatch.overflow);
  return routing;
}

void TrainStep::ReduceGradients() {
  const PhaseScope phase = parts_.context.StartPhase("reduce gradients");
  parts_.buckets.Reduce();
  SumSharedTable();
}

void TrainStep::Update(const Tensor& loss, const Tensor& routing, const Tensor& overflow) {
  Context& context = parts_.context;
  const PhaseScope phase = context.StartPhase("update");
  if (overflow.defined()) parts_.mesh.world().AllReduceMax(overflow).Wait();
  kernels::DecideUpdate({.loss = loss,
                         .squares = SquaredGradientNorm(parts_.buckets, parts_.mesh, context),
                         .overflow = overflow,
                         .clip_norm = parts_.clip_norm,
                         .state = context.step_state()},
                        context);
  parts_.optimizer.Step();
  if (routing.defined()) parts_.model.FollowRouting(routing);
}

// Here, and on one rank only here, the host waits for a device.
std::optional<StepResult> TrainStep::Report(const StepInputs& step, const Tensor& routing) {
  Context& context = parts_.context;
  const auto later = [&](const Tensor& x) { return x.defined() ? ToHostLater(x, context) : x; };
  const Tensor state = later(context.step_state()), sums = later(routing);
  const Tensor overflow = later(step.dispatch.overflow);
  context.Wait();
  const bool is_meta = context.device().is_meta();
  if (!is_meta && overflow.defined() && overflow.data<double>()[0] != 0) return std::nullopt;
  StepResult result{.tokens = step.num_tokens, .routing = parts_.model.Summarize(sums)};
  if (is_meta) return result;
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
          .selection_hook = selection_hook_ ? &selection_hook_ : nullptr,
          .dispatch = {.max_tokens = MaxTokens(micro_batches)}};
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
