#include "model/moe/experts.h"

#include <cmath>

#include "kernels/ops/activations.h"
#include "kernels/ops/linear.h"

namespace moebius {

Experts::Experts(const ModelSpec& spec, const std::string& prefix, const std::vector<int>& owner,
                 ParameterStore& store) {
  const int64_t E = spec.moe.num_experts, F = spec.moe.expert_hidden_size, D = spec.hidden_size;
  const double out_std = spec.init_std / std::sqrt(2.0 * static_cast<double>(spec.num_layers));
  const auto add = [&](const char* name, const Shape& shape, double deviation, int hidden) {
    return store.AddParameter(
        {.name = prefix + name,
         .shape = shape,
         .standard_deviation = deviation,
         .group = ParameterGroup::kExpert,
         .cuts = {{0, Axis::kExpert, owner}, store.CutOver(Axis::kExpertTensor, hidden, F)}});
  };
  gate_ = add("experts.gate.weight", {E, F, D}, spec.init_std, 1);
  up_ = add("experts.up.weight", {E, F, D}, spec.init_std, 1);
  down_ = add("experts.down.weight", {E, D, F}, out_std, 2);
}

Var Experts::Forward(Tape& tape, const Var& rows, const Tensor& offsets) const {
  const Var hidden = ops::SwiGlu(tape, ops::GroupedLinear(tape, rows, offsets, gate_),
                                 ops::GroupedLinear(tape, rows, offsets, up_));
  return ops::GroupedLinear(tape, hidden, offsets, down_);
}

Var Experts::ForwardInPlace(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
                            const Tensor& row_tokens) const {
  const Var hidden = ops::SwiGlu(tape, ops::TokensToExperts(tape, x, plan, row_tokens, gate_),
                                 ops::TokensToExperts(tape, x, plan, row_tokens, up_));
  return ops::ExpertsToTokens(tape, hidden, weights, plan, row_tokens, down_);
}

}  // namespace moebius
