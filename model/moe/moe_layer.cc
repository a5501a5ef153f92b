#include "model/moe/moe_layer.h"

namespace moebius {
namespace {

// [E] on the expert axis
std::vector<int> OwnersOn(const Mesh& mesh, const ModelSpec& spec) {
  return EvenOwners(spec.moe.num_experts, mesh.position().size_of(Axis::kExpert));
}

}  // namespace

MoeLayer::MoeLayer(const ModelSpec& spec, const std::string& prefix, ParameterStore& store,
                   Mesh& mesh, Context& context, const Options& options)
    : dispatcher_(
          Dispatcher::Create(options.dispatcher, OwnersOn(mesh, spec), spec.moe.top_k, mesh)),
      router_(spec, prefix, store, options.router),
      experts_(spec, prefix, OwnersOn(mesh, spec), store),
      balance_(spec.moe, prefix, store, context, mesh, options.router) {
  if (spec.moe.num_shared_experts > 0) {
    shared_.emplace(spec, spec.moe.num_shared_experts * spec.moe.expert_hidden_size,
                    prefix + "shared.", store, mesh);
  }
}

MoeLayer::Routed MoeLayer::Route(Tape& tape, const Var& x, const MicroBatch& batch,
                                 const StepInputs& step) {
  const auto [logits, scores] = router_.Score(tape, x);
  Routing routing = tape.Once([&] {
    return dispatcher_->Agree(Select(x.value(), scores.value(), batch, step, tape.context()),
                              step.selection_hook == nullptr ? step.dispatch : BoundedDispatch{},
                              tape.context());
  });
  balance_.Apply(tape, logits, scores, routing.plan, batch, step);
  Var weights =
      dispatcher_->CombineWeights(tape, router_.Weigh(tape, scores, routing.plan), routing);
  return {std::move(routing), std::move(weights)};
}

RoutingPlan MoeLayer::Select(const Tensor& x, const Tensor& scores, const MicroBatch& batch,
                             const StepInputs& step, Context& context) {
  const Tensor bias = balance_.selection_bias();
  if (step.records_margins) {
    balance_.record().margins.push_back(router_.Margin(scores, bias, batch, context));
  }
  RoutingPlan plan = router_.Select(scores, bias, batch, step, context);
  if (step.selection_hook == nullptr || context.device().is_meta()) return plan;
  RoutingPlan answer = (*step.selection_hook)({.layer = router_.prefix(),
                                               .batch = batch,
                                               .pass = step.pass,
                                               .x = x,
                                               .scores = scores,
                                               .bias = bias,
                                               .plan = plan},
                                              context);
  CHECK_EQ(answer.num_tokens(), plan.num_tokens()) << "a selection hook's plan";
  CHECK_EQ(answer.num_experts(), plan.num_experts()) << "a selection hook's plan";
  return answer;
}

RowsUnderWay MoeLayer::Dispatch(Tape& tape, const Var& x, const Routing& routing) const {
  return dispatcher_->Dispatch(tape, x, routing);
}

Var MoeLayer::RunExperts(Tape& tape, const Var& rows, const Var& weights,
                         const Routing& routing) const {
  if (routing.in_place) {
    const auto& [plan, row_tokens] = *routing.in_place;
    return experts_.ForwardInPlace(tape, rows, weights, plan, row_tokens);
  }
  return experts_.Forward(tape, rows, routing.row_offsets);
}

RowsUnderWay MoeLayer::Combine(Tape& tape, const Var& rows, const Var& weights,
                               const Routing& routing) const {
  return dispatcher_->Combine(tape, rows, weights, routing);
}

}  // namespace moebius
