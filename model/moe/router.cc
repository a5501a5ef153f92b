#include "model/moe/router.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/copy.h"
#include "kernels/ops/activations.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/routing.h"

namespace moebius {
namespace {

using DebugRouting = MoeSpec::DebugRouting;

// The experts that a debug mode forces on a token.
std::vector<int32_t> ForcedExperts(const MoeSpec& spec, const RandomStream& stream, int64_t token) {
  const auto E = static_cast<int32_t>(spec.num_experts);
  if (spec.debug_routing == DebugRouting::kAllToOne) return {E - 1};
  std::vector<int32_t> experts;
  const int32_t stride = spec.debug_routing == DebugRouting::kSomeEmpty && E > 1 ? 2 : 1;
  for (int32_t i = 0; i < E; i += stride) experts.push_back(i);
  const auto k = std::min<size_t>(spec.top_k, experts.size());
  for (size_t i = 0; i < k; ++i) {  // the first k of a shuffle
    const uint64_t index = static_cast<uint64_t>(token) * spec.top_k + i;
    std::swap(experts[i], experts[i + stream.Below(index, experts.size() - i)]);
  }
  experts.resize(k);
  return experts;
}

Tensor Int32Tensor(const std::vector<int32_t>& numbers, Context& context) {
  const Tensor x =
      EmptyOnHost(DType::kI32, {static_cast<int64_t>(numbers.size())}, "routing.plan", context);
  std::ranges::copy(numbers, x.data<int32_t>());
  return ToDevice(x, "routing.plan", context);
}

}  // namespace

Router::Router(const ModelSpec& spec, const std::string& prefix, ParameterStore& store, DType dtype)
    : spec_(spec.moe), prefix_(prefix), dtype_(dtype) {
  weight_ = store.AddParameter({.name = prefix + "router.weight",
                                .shape = {spec.moe.num_experts, spec.hidden_size},
                                .standard_deviation = spec.init_std,
                                .group = ParameterGroup::kRouter});
}

Router::Scores Router::Score(Tape& tape, const Var& x) const {
  const Var logits = ops::Linear(tape, ops::Cast(tape, x, dtype_), weight_);
  return {logits, spec_.score == MoeSpec::Score::kSoftmax ? ops::Softmax(tape, logits)
                                                          : ops::Sigmoid(tape, logits)};
}

RoutingPlan Router::Select(const Tensor& scores, const Tensor& bias, const MicroBatch& batch,
                           const StepInputs& step, Context& context) const {
  const bool forced = spec_.debug_routing != DebugRouting::kNone && !context.device().is_meta();
  if (forced) return Forced(batch, step, context);
  return kernels::TopK({.scores = scores,
                        .bias = bias,
                        .k = spec_.top_k,
                        .document_ids = batch.shard.document_ids,
                        .num_routed = batch.shard.num_tokens},
                       context);
}

Tensor Router::Margin(const Tensor& scores, const Tensor& bias, const MicroBatch& batch,
                      Context& context) const {
  return kernels::TopKMargin(
      {.scores = scores, .bias = bias, .k = spec_.top_k, .document_ids = batch.shard.document_ids},
      context);
}

Var Router::Weigh(Tape& tape, const Var& scores, const RoutingPlan& plan) const {
  return ops::PairWeights(tape, scores, plan, spec_.renormalize, spec_.scale);
}

RoutingPlan Router::Forced(const MicroBatch& batch, const StepInputs& step,
                           Context& context) const {
  const RandomStream stream(step.seed, prefix_ + "debug_routing");
  const Tensor document_ids = ToHost(batch.shard.document_ids, context);
  const Tensor token_index = ToHost(batch.shard.token_index, context);
  const auto documents = document_ids.span<int32_t>();
  const auto tokens = token_index.span<int64_t>();
  std::vector<int32_t> offsets = {0}, experts;
  for (size_t t = 0; t < documents.size(); ++t) {
    if (documents[t] >= 0)
      std::ranges::copy(ForcedExperts(spec_, stream, tokens[t]), std::back_inserter(experts));
    offsets.push_back(static_cast<int32_t>(experts.size()));
  }
  return kernels::BuildPlan(Int32Tensor(offsets, context), Int32Tensor(experts, context),
                            spec_.num_experts, context);
}

}  // namespace moebius
