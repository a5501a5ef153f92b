#include "model/moe/moe_layer.h"

#include "kernels/ops/routing.h"

namespace moebius {

MoeLayer::MoeLayer(const ModelSpec& spec, const std::string& prefix, ParameterStore& store,
                   Mesh& mesh, Context& context, DType router)
    : expert_group_(&mesh.group_over({Axis::kExpert, Axis::kExpertTensor})),
      copies_(mesh.position().size_of(Axis::kExpertTensor)),
      owner_(EvenOwners(spec.moe.num_experts, mesh.position().size_of(Axis::kExpert))),
      router_(spec, prefix, store, router),
      experts_(spec, prefix, owner_, store),
      balance_(spec.moe, prefix, store, context, mesh, router) {
  if (spec.moe.num_shared_experts > 0) {
    shared_.emplace(spec, spec.moe.num_shared_experts * spec.moe.expert_hidden_size,
                    prefix + "shared.", store, mesh);
  }
}

MoeLayer::Routed MoeLayer::Route(Tape& tape, const Var& x, const MicroBatch& batch,
                                 const StepInputs& step) {
  const auto [logits, scores] = router_.Score(tape, x);
  Routing routing = tape.Once([&] {
    if (step.records_margins) {
      balance_.record().margins.push_back(
          router_.Margin(scores.value(), balance_.selection_bias(), batch, tape.context()));
    }
    RoutingPlan plan =
        router_.Select(scores.value(), balance_.selection_bias(), batch, step, tape.context());
    Exchange exchange =
        MakeExchange(plan.expert_offsets, owner_, copies_, *expert_group_, tape.context());
    return Routing{std::move(plan), std::move(exchange)};
  });
  balance_.Apply(tape, logits, scores, routing.plan, batch, step);
  Var weights = router_.Weigh(tape, scores, routing.plan);
  return {std::move(routing), std::move(weights)};
}

Var MoeLayer::Dispatch(Tape& tape, const Var& x, const Routing& routing) const {
  return ToExperts(tape, ops::Permute(tape, x, routing.plan), routing.exchange, expert_group_);
}

Var MoeLayer::RunExperts(Tape& tape, const Var& rows, const Routing& routing) const {
  return experts_.Forward(tape, rows, routing.exchange.local_offsets);
}

Var MoeLayer::Combine(Tape& tape, const Var& rows, const Var& weights,
                      const Routing& routing) const {
  const Var returned = FromExperts(tape, rows, routing.exchange, expert_group_);
  return ops::Combine(tape, returned, weights, routing.plan);
}

}  // namespace moebius
