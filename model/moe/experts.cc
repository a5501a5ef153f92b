#include "model/moe/experts.h"

#include <cmath>

#include "kernels/ops/swiglu.h"

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
  return ops::Down(tape, ops::GateAndUp(tape, rows, {.offsets = offsets}, gate_, up_), offsets,
                   down_);
}

Var Experts::ForwardInPlace(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
                            const Tensor& row_tokens) const {
  const ops::ProductRows rows = {plan.expert_offsets, row_tokens};
  return ops::DownToTokens(tape, ops::GateAndUp(tape, x, rows, gate_, up_), weights, plan,
                           row_tokens, down_);
}

}  // namespace moebius
