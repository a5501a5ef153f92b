#include "train/step.h"

#include <cmath>
#include <span>

#include "optim/gradient_norm.h"
#include "train/batch_loader.h"

namespace moebius {

StepResult TrainStep::Run(const std::vector<MicroBatch>& micro_batches) {
  const StepInputs step = Normalize(micro_batches);
  model_.BeginStep();
  buckets_.BeginStep();
  CountExactly(micro_batches, step);

  StepResult result{.loss = ForwardBackward(micro_batches, step), .tokens = step.num_tokens};
  buckets_.Reduce();
  result.routing = model_.SummarizeRouting();
  result.gradient_norm = GradientNorm(buckets_, mesh_, context_);

  result.updated = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  if (!result.updated) return result;
  const bool clips = clip_norm_ > 0 && result.gradient_norm > clip_norm_;
  context_.step().clip_scale = clips ? clip_norm_ / result.gradient_norm : 1.0;
  optimizer_.Step();
  model_.FollowRouting(result.routing);
  return result;
}

// The sums of the global batch that losses are divided by, before the first forward.
StepInputs TrainStep::Normalize(const std::vector<MicroBatch>& micro_batches) {
  double totals[2] = {0, 0};  // loss weight, tokens
  for (const MicroBatch& batch : micro_batches) {
    const BatchTotals own = TotalsOf(batch);
    totals[0] += own.loss_weight;
    totals[1] += own.tokens;
  }
  mesh_.group_over({Axis::kData, Axis::kContext}).AllReduce(std::span(totals)).Wait();
  for (const MicroBatch& batch : micro_batches) NormalizeLossWeights(totals[0], batch);
  return {.num_tokens = totals[1],
          .micro_batches_per_rank = static_cast<int64_t>(micro_batches.size()),
          .records_margins = records_margins_,
          .pass = Pass::kTrain,
          .seed = seed_};
}

void TrainStep::CountExactly(const std::vector<MicroBatch>& micro_batches, const StepInputs& step) {
  const MoeSpec& moe = model_.spec().moe;
  if (moe.global_counts != MoeSpec::GlobalCounts::kExact || !moe.needs_global_counts() ||
      micro_batches.size() == 1) {
    return;
  }
  for (const MicroBatch& batch : micro_batches) {
    Tape tape(context_, weights_, Tape::Mode::kForwardOnly);
    model_.CountRouting(tape, batch, step);
  }
  model_.EndCountingPass();
}

double TrainStep::ForwardBackward(const std::vector<MicroBatch>& micro_batches,
                                  const StepInputs& step) {
  double loss = 0;
  for (const MicroBatch& batch : micro_batches) {
    buckets_.BeginMicroBatch(/*last=*/&batch == &micro_batches.back());
    Tape tape(context_, weights_, Tape::Mode::kTrain, &buckets_);
    loss += model_.Loss(tape, batch, step).data<double>()[0];
    tape.Backward();
    buckets_.EndMicroBatch();
  }
  mesh_.group_over({Axis::kData, Axis::kContext}).AllReduce(std::span(&loss, 1)).Wait();
  return loss;
}

}  // namespace moebius
