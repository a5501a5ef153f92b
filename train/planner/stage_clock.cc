#include "train/planner/stage_clock.h"

#include <algorithm>

#include "core/base/check.h"

namespace moebius {

RankTime& RankTime::operator+=(const RankTime& other) {
  compute += other.compute;
  exchange += other.exchange;
  return *this;
}

RankTime& RankTime::operator-=(const RankTime& other) { return *this += -1.0 * other; }

RankTime operator*(double factor, const RankTime& time) {
  return {factor * time.compute, factor * time.exchange};
}

void Add(int64_t factor, const OpTimes& ops, OpTimes* sum) {
  for (const auto& [name, op] : ops) {
    OpTime& to = (*sum)[name];
    to.count += factor * op.count;
    to.seconds += static_cast<double>(factor) * op.seconds;
    to.flops += static_cast<double>(factor) * op.flops;
  }
}

void StageClock::OpBegins(const Work& work) {
  const double seconds = cost_.SecondsOf(work);
  total_.compute += seconds;
  OpTime& op = ops_[work.op];
  op.count += 1;
  op.seconds += seconds;
  op.flops += work.flops;
}

int64_t StageClock::Started(const Call& call, const std::vector<int>& members) {
  const ExchangeCost cost = cost_.CostOf(call, SpreadOf(members));
  Exchange exchange{.name = NameOf(call.collective), .seconds = cost.seconds()};
  if (cost_.overlaps_exchange()) {
    exchange.end = std::max(Occupy(cost.within_node, &within_node_free_),
                            Occupy(cost.between_nodes, &between_nodes_free_));
  }
  exchanges_.push_back(exchange);
  ops_[exchange.name].count += 1;
  return std::ssize(exchanges_) - 1;
}

const GroupSpread& StageClock::SpreadOf(const std::vector<int>& members) {
  const auto found = spreads_.find(members);
  if (found != spreads_.end()) return found->second;
  return spreads_.emplace(members, cost_.SpreadOf(members, num_ranks_)).first->second;
}

// When a link is done that is busy for so long from now, or from when it is free.
double StageClock::Occupy(double seconds, double* link_free) const {
  if (seconds == 0) return 0;
  *link_free = std::max(*link_free, total_.total()) + seconds;
  return *link_free;
}

void StageClock::Waited(int64_t call) {
  CHECK(call >= 0 && call < std::ssize(exchanges_)) << "no such call: " << call;
  const Exchange& exchange = exchanges_[call];
  const double waited =
      cost_.overlaps_exchange() ? std::max(exchange.end - total_.total(), 0.0) : exchange.seconds;
  total_.exchange += waited;
  ops_[exchange.name].seconds += waited;
}

void StageClock::PlanBegins(const PipelinePlan& plan) { plans_.push_back({.plan = plan}); }

void StageClock::ActionBegins(const Action& action) {
  action_begin_ = total_;
  if (action.micro_batch == plans_.back().middle()) ops_begin_ = ops_;
}

void StageClock::ActionEnds(const Action& action) {
  PlanTimes& plan = plans_.back();
  RankTime time = total_;
  time -= action_begin_;
  plan.actions[action] = time;
  if (action.micro_batch != plan.middle()) return;
  Add(1, ops_, &plan.middle_ops);
  Add(-1, ops_begin_, &plan.middle_ops);
}

RankTime StageClock::outside() const {
  RankTime outside = total_;
  for (const PlanTimes& plan : plans_) {
    for (const auto& [action, time] : plan.actions) outside -= time;
  }
  return outside;
}

}  // namespace moebius
