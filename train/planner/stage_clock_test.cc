#include "train/planner/stage_clock.h"

#include <gtest/gtest.h>

#include "core/base/check.h"

namespace moebius {
namespace {

// A byte through memory takes a second, and so does one that is sent. Four ranks on two nodes.
CostModel SlowCluster(bool overlaps) {
  ClusterConfig cluster;
  cluster.set_ranks(4);
  cluster.set_ranks_per_node(2);
  cluster.mutable_device()->set_fp32_flops(1);
  cluster.mutable_device()->set_memory_bandwidth(1);
  cluster.mutable_device()->set_product_efficiency(1);
  cluster.mutable_device()->set_attention_efficiency(1);
  cluster.mutable_device()->set_bandwidth_efficiency(1);
  for (LinkConfig* link : {cluster.mutable_within_node(), cluster.mutable_between_nodes()}) {
    link->set_bandwidth(1);
    link->set_efficiency(1);
  }
  cluster.set_overlaps_exchange(overlaps);
  const absl::StatusOr<CostModel> model = CostModel::Create(cluster, PrecisionConfig::FP32);
  CHECK(model.ok()) << model.status();
  return *model;
}

const Work kThreeSeconds{.op = "add", .bytes = 3};
const std::vector<int> kNode = {0, 1}, kAcross = {0, 2};

Call Gather(int64_t seconds) { return {.collective = Collective::kAllGather, .bytes = seconds}; }

TEST(StageClock, ComputationHidesAnExchange) {
  const CostModel cost = SlowCluster(true);
  StageClock clock(cost, 4);
  const int64_t call = clock.Started(Gather(5), kNode);
  clock.OpBegins(kThreeSeconds);
  EXPECT_DOUBLE_EQ(clock.total().total(), 3);
  clock.Waited(call);
  EXPECT_DOUBLE_EQ(clock.total().exchange, 2);
  EXPECT_DOUBLE_EQ(clock.total().total(), 5);
  EXPECT_DOUBLE_EQ(clock.ops().at("all-gather").seconds, 2);
  EXPECT_EQ(clock.ops().at("add").count, 1);
}

TEST(StageClock, ALinkCarriesOneExchangeAtATime) {
  const CostModel cost = SlowCluster(true);
  StageClock clock(cost, 4);
  const int64_t first = clock.Started(Gather(4), kNode);
  const int64_t second = clock.Started(Gather(4), kNode);
  const int64_t other_link = clock.Started(Gather(7), kAcross);
  clock.Waited(other_link);
  EXPECT_DOUBLE_EQ(clock.total().total(), 7);
  clock.Waited(first);
  EXPECT_DOUBLE_EQ(clock.total().total(), 7);
  clock.Waited(second);
  EXPECT_DOUBLE_EQ(clock.total().total(), 8);
}

// Four ranks on two nodes: one of four parts stays within the node, two of them leave it.
TEST(StageClock, AnExchangeOverNodesIsBusyOnBothLinks) {
  const CostModel cost = SlowCluster(true);
  const Call all_to_all{.collective = Collective::kAllToAllV, .bytes = 8};
  StageClock clock(cost, 4);
  const int64_t first = clock.Started(all_to_all, {0, 1, 2, 3});
  const int64_t near = clock.Started(Gather(5), kNode);   // behind its 2 seconds
  const int64_t far = clock.Started(Gather(1), kAcross);  // behind its 4
  clock.Waited(first);
  EXPECT_DOUBLE_EQ(clock.total().total(), 4);
  clock.Waited(far);
  EXPECT_DOUBLE_EQ(clock.total().total(), 5);
  clock.Waited(near);
  EXPECT_DOUBLE_EQ(clock.total().total(), 7);
}

TEST(StageClock, WithoutOverlapAnExchangeTakesItsTimeInTheWait) {
  const CostModel cost = SlowCluster(false);
  StageClock clock(cost, 4);
  const int64_t call = clock.Started(Gather(5), kNode);
  clock.OpBegins(kThreeSeconds);
  clock.Waited(call);
  EXPECT_DOUBLE_EQ(clock.total().total(), 8);
}

TEST(StageClock, TellsActionsFromWhatLiesOutsideOfThem) {
  const CostModel cost = SlowCluster(true);
  StageClock clock(cost, 4);
  const Action forward{Action::Kind::kForward, 0, 0}, backward{Action::Kind::kBackward, 0, 0};
  clock.OpBegins(kThreeSeconds);
  clock.PlanBegins({});
  clock.ActionBegins(forward);
  clock.OpBegins(kThreeSeconds);
  clock.ActionEnds(forward);
  clock.ActionBegins(backward);
  clock.OpBegins(kThreeSeconds);
  clock.OpBegins(kThreeSeconds);
  clock.Waited(clock.Started(Gather(1), kNode));
  clock.ActionEnds(backward);
  clock.PlanEnds();
  clock.OpBegins(kThreeSeconds);
  ASSERT_EQ(clock.plans().size(), 1);
  EXPECT_DOUBLE_EQ(clock.plans()[0].actions.at(forward).total(), 3);
  EXPECT_DOUBLE_EQ(clock.plans()[0].actions.at(backward).compute, 6);
  EXPECT_DOUBLE_EQ(clock.plans()[0].actions.at(backward).exchange, 1);
  EXPECT_DOUBLE_EQ(clock.outside().compute, 6);
  EXPECT_DOUBLE_EQ(clock.outside().exchange, 0);
}

}  // namespace
}  // namespace moebius
