#include "model/moe/dispatcher.h"

#include "kernels/ops/routing.h"

namespace moebius {
namespace {

// The ranks that have the experts: expert j is on owner[j] * copies .. + copies of the group.
struct ExpertGroup {
  Communicator* communicator;  // expert x expert-tensor
  int copies;                  // ranks that an expert is cut over
  std::vector<int> owner;      // [E] on the expert axis
};

TokensInPlace InPlace(const RoutingPlan& plan, Context& context) {
  return {plan, kernels::RowTokens(plan, context)};
}

RowsUnderWay AlreadyThere(const Var& x) {
  return RowsUnderWay([x](Tape&) { return x; });
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  explicit AllToAllDispatcher(ExpertGroup group) : group_(std::move(group)) {}

  Routing Agree(RoutingPlan plan, Context& context) const override {
    Routing routing = {.plan = std::move(plan), .way = Exchange()};
    if (group_.communicator->size() == 1) {
      routing.in_place = InPlace(routing.plan, context);
    } else {
      routing.way = MakeExchange(routing.plan.expert_offsets, group_.owner, group_.copies,
                                 *group_.communicator, context);
    }
    return routing;
  }
  Var CombineWeights(Tape&, const Var& weights, const Routing&) const override { return weights; }

  RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const override {
    if (routing.in_place) return AlreadyThere(x);
    const Var rows = ops::Permute(tape, x, routing.plan);
    return ToExperts(tape, rows, WayOf(routing), group_.communicator);
  }
  RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& weights,
                       const Routing& routing) const override {
    if (routing.in_place) return AlreadyThere(rows);
    return FromExperts(tape, rows, WayOf(routing), group_.communicator)
        .Then([weights, plan = routing.plan](Tape& tape, const Var& returned) {
          return ops::Combine(tape, returned, weights, plan);
        });
  }

 private:
  static const Exchange& WayOf(const Routing& routing) { return std::get<Exchange>(routing.way); }

  const ExpertGroup group_;
};

class AllGatherDispatcher final : public Dispatcher {
 public:
  explicit AllGatherDispatcher(ExpertGroup group) : group_(std::move(group)) {}

  Routing Agree(RoutingPlan plan, Context& context) const override {
    TokenGather gather =
        MakeTokenGather(plan, group_.owner, group_.copies, *group_.communicator, context);
    TokensInPlace in_place = InPlace(gather.plan, context);
    return {std::move(plan), std::move(gather), std::move(in_place)};
  }
  Var CombineWeights(Tape& tape, const Var& weights, const Routing& routing) const override {
    return GatherWeights(tape, weights, WayOf(routing), group_.communicator);
  }

  RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const override {
    return GatherTokens(tape, x, WayOf(routing), group_.communicator);
  }
  RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& /*weights*/,
                       const Routing& routing) const override {
    return ScatterTokens(tape, rows, routing.plan.num_tokens(), group_.communicator);
  }

 private:
  static const TokenGather& WayOf(const Routing& routing) {
    return std::get<TokenGather>(routing.way);
  }

  const ExpertGroup group_;
};

}  // namespace

std::unique_ptr<Dispatcher> Dispatcher::Create(DispatcherKind kind, std::vector<int> owner,
                                               Mesh& mesh) {
  ExpertGroup group = {.communicator = &mesh.group_over({Axis::kExpert, Axis::kExpertTensor}),
                       .copies = mesh.position().size_of(Axis::kExpertTensor),
                       .owner = std::move(owner)};
  if (kind == DispatcherKind::kAllGather) {
    return std::make_unique<AllGatherDispatcher>(std::move(group));
  }
  return std::make_unique<AllToAllDispatcher>(std::move(group));
}

}  // namespace moebius
