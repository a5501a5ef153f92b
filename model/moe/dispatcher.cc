#include "model/moe/dispatcher.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops/routing.h"

namespace moebius {
namespace {

// The ranks that have the experts: expert j is on owner[j] * copies .. + copies of the group.
struct ExpertGroup {
  Communicator* communicator;  // expert x expert-tensor
  int copies;                  // ranks that an expert is cut over
  std::vector<int> owner;      // [E] on the expert axis
  int64_t top_k;               // experts of a token
};

TokensInPlace InPlace(const RoutingPlan& plan, Context& context) {
  return {plan, kernels::RowTokens(plan, context)};
}

RowsUnderWay AlreadyThere(const Var& x) {
  return RowsUnderWay([x](Tape&) { return x; });
}

// Rows that a rank has room for in what it sends to another: more than there can be is no use.
int64_t CapacityOf(const BoundedDispatch& bound, const ExpertGroup& group) {
  const int64_t num_owners = group.communicator->size() / group.copies;
  int64_t most_experts = 0;  // of an owner
  for (int o = 0; o < num_owners; ++o) {
    most_experts = std::max<int64_t>(most_experts, std::ranges::count(group.owner, o));
  }
  const double even =
      static_cast<double>(bound.max_tokens * group.top_k) / static_cast<double>(num_owners);
  const int64_t limit = bound.max_tokens * std::min(group.top_k, most_experts);
  return static_cast<int64_t>(
      std::min(std::ceil(bound.capacity * even), static_cast<double>(limit)));
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  explicit AllToAllDispatcher(ExpertGroup group) : group_(std::move(group)) {}

  Routing Agree(RoutingPlan plan, const BoundedDispatch& bound, Context& context) const override {
    Routing routing = {.plan = std::move(plan), .way = Exchange()};
    if (group_.communicator->size() == 1) {
      routing.in_place = InPlace(routing.plan, context);
    } else if (bound.capacity > 0) {
      AgreeOnBounded(bound, routing, context);
    } else {
      Exchange exchange = MakeExchange(routing.plan.expert_offsets, group_.owner, group_.copies,
                                       *group_.communicator, context);
      routing.row_offsets = exchange.local_offsets;
      routing.way = std::move(exchange);
    }
    return routing;
  }
  Var CombineWeights(Tape&, const Var& weights, const Routing&) const override { return weights; }

  RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const override {
    if (routing.in_place) return AlreadyThere(x);
    const Var rows = ops::Permute(tape, x, routing.plan);
    return WithWay(
        routing, [&](const auto& way) { return ToExperts(tape, rows, way, group_.communicator); });
  }
  RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& weights,
                       const Routing& routing) const override {
    if (routing.in_place) return AlreadyThere(rows);
    RowsUnderWay returning = WithWay(routing, [&](const auto& way) {
      return FromExperts(tape, rows, way, group_.communicator);
    });
    return std::move(returning).Then(
        [weights, plan = routing.plan](Tape& tape, const Var& returned) {
          return ops::Combine(tape, returned, weights, plan);
        });
  }

 private:
  void AgreeOnBounded(const BoundedDispatch& bound, Routing& routing, Context& context) const {
    BoundedExchange exchange = MakeBoundedExchange(
        routing.plan.expert_offsets, routing.plan.num_pairs(), group_.owner, group_.copies,
        {CapacityOf(bound, group_), bound.overflow}, *group_.communicator, context);
    routing.row_offsets = exchange.local_offsets;
    routing.way = std::move(exchange);
  }

  template <class Fn>
  static RowsUnderWay WithWay(const Routing& routing, const Fn& fn) {
    const auto* const bounded = std::get_if<BoundedExchange>(&routing.way);
    return bounded != nullptr ? fn(*bounded) : fn(std::get<Exchange>(routing.way));
  }

  const ExpertGroup group_;
};

class AllGatherDispatcher final : public Dispatcher {
 public:
  explicit AllGatherDispatcher(ExpertGroup group) : group_(std::move(group)) {}

  Routing Agree(RoutingPlan plan, const BoundedDispatch&, Context& context) const override {
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
                                               int64_t top_k, Mesh& mesh) {
  ExpertGroup group = {.communicator = &mesh.group_over({Axis::kExpert, Axis::kExpertTensor}),
                       .copies = mesh.position().size_of(Axis::kExpertTensor),
                       .owner = std::move(owner),
                       .top_k = top_k};
  if (kind == DispatcherKind::kAllGather) {
    return std::make_unique<AllGatherDispatcher>(std::move(group));
  }
  return std::make_unique<AllToAllDispatcher>(std::move(group));
}

}  // namespace moebius
