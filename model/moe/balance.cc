#include "model/moe/balance.h"

#include <algorithm>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"
#include "kernels/expert_counts.h"
#include "kernels/ops/router_losses.h"

namespace moebius {
Balance::Balance(const MoeSpec& spec, const std::string& prefix, ParameterStore& store,
                 Context& context, Mesh& mesh, DType router)
    : spec_(spec),
      context_(context),
      batch_group_(mesh.group_over({Axis::kData, Axis::kContext, Axis::kTensor})),
      micro_batch_group_(mesh.group_over({Axis::kContext, Axis::kTensor})),
      router_(router),
      last_counts_(store.AddBuffer(prefix + "last_counts", DType::kF64, {spec.num_experts})),
      step_counts_(context.Zeros(DType::kF64, {spec.num_experts}, "routing.counts")),
      record_{.sums = context.Zeros(DType::kF64, {spec.num_experts + 2}, "routing.counts"),
              .margins = {}} {
  if (spec.bias_update_rate > 0) {
    bias_ = store.AddBuffer(prefix + "expert_bias", router, {spec.num_experts});
  }
}

void Balance::Apply(Tape& tape, const Var& logits, const Var& scores, const RoutingPlan& plan,
                    const MicroBatch& batch, const StepInputs& step) {
  const Tensor global = tape.Once([&] { return Count(plan, step); });
  if (step.pass != Pass::kTrain) return;
  for (const BalanceLossSpec& loss : spec_.balance_losses) {
    const bool by_sequence = loss.scope == BalanceLossSpec::Scope::kSequence;
    const int64_t num_groups = by_sequence ? std::max<int64_t>(batch.num_sequences, 1) : 1;
    const int64_t tokens_per_group =
        std::max<int64_t>(by_sequence ? batch.shard.positions : scores.shape()[0], 1);
    const Tensor fractions =
        loss.scope == BalanceLossSpec::Scope::kGlobalBatch
            ? global
            : tape.Once([&] { return FractionsOfGroups(plan, num_groups, tokens_per_group); });
    const Tensor value =
        ops::BalanceLoss(tape, scores,
                         {.fractions = fractions,
                          .document_ids = batch.shard.document_ids,
                          .tokens_per_group = tokens_per_group,
                          .normalize_scores = spec_.score == MoeSpec::Score::kSigmoid,
                          .divisor = step.num_tokens},
                         loss.weight);
    tape.Once([&] { return Add(value, record_.balance_loss()); });
  }
  if (spec_.z_loss_weight > 0) {
    const Tensor value = ops::ZLoss(
        tape, logits, {.document_ids = batch.shard.document_ids, .divisor = step.num_tokens},
        spec_.z_loss_weight);
    tape.Once([&] { return Add(value, record_.z_loss()); });
  }
}

Tensor Balance::Add(const Tensor& value, const Tensor& sum) {
  kernels::Sum({.x = value, .sum = sum, .accumulate = true}, context_);
  return sum;
}

// Adds the plan to this step's counts and returns the global batch's fractions as far as known.
Tensor Balance::Count(const RoutingPlan& plan, const StepInputs& step) {
  kernels::ExpertCounts({.plan = plan,
                         .tokens_per_group = std::max<int64_t>(plan.num_tokens(), 1),
                         .counts = record_.counts().Reshape({1, spec_.num_experts}),
                         .accumulate = true},
                        context_);
  if (!spec_.needs_global_counts() || step.pass != Pass::kTrain) return Tensor();
  return GlobalFractions(step);
}

Tensor Balance::GlobalFractions(const StepInputs& step) {
  if (spec_.global_counts == MoeSpec::GlobalCounts::kPreviousStep) {
    return FractionsOf(last_counts_->value);
  }
  const bool counted_before =
      spec_.global_counts == MoeSpec::GlobalCounts::kExact && step.micro_batches_per_rank > 1;
  if (!counted_before) SumCountsOverRanks();
  return FractionsOf(step_counts_);
}

void Balance::SumCountsOverRanks() {
  Copy(record_.counts(), step_counts_);
  batch_group_.AllReduce(step_counts_).Wait();
}

// Of consecutive groups of this micro-batch's tokens, of which each rank has a share.
Tensor Balance::FractionsOfGroups(const RoutingPlan& plan, int64_t num_groups,
                                  int64_t tokens_per_group) {
  const Tensor counts =
      context_.Empty(DType::kF64, {num_groups, spec_.num_experts}, "routing.counts");
  kernels::ExpertCounts(
      {.plan = plan, .tokens_per_group = tokens_per_group, .counts = counts, .accumulate = false},
      context_);
  micro_batch_group_.AllReduce(counts).Wait();
  return FractionsOf(counts);
}

Tensor Balance::FractionsOf(const Tensor& counts) {
  const int64_t groups = counts.size() / spec_.num_experts;
  const Tensor fractions =
      context_.Empty(router_, {groups, spec_.num_experts}, "routing.fractions");
  kernels::ExpertFractions(counts.Reshape(fractions.shape()), fractions, context_);
  return fractions;
}

void Balance::BeginStep() {
  Clear(record_.sums);
  record_.margins.clear();
}

void Balance::EndCountingPass() {
  SumCountsOverRanks();
  BeginStep();
}

void Balance::EndStep(const Tensor& counts) {
  kernels::FollowCounts({.counts = counts,
                         .state = context_.step_state(),
                         .last_counts = last_counts_->value,
                         .bias = selection_bias(),
                         .rate = spec_.bias_update_rate},
                        context_);
}

}  // namespace moebius
