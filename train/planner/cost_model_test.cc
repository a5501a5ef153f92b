#include "train/planner/cost_model.h"

#include <gtest/gtest.h>

#include "core/base/check.h"

namespace moebius {
namespace {

// Round numbers: a product of 1e9 FLOPs and 1e6 bytes takes 2 ms + 1 ms + 0.1 ms.
ClusterConfig RoundCluster() {
  ClusterConfig cluster;
  cluster.set_ranks(16);
  cluster.set_ranks_per_node(4);
  DeviceConfig* device = cluster.mutable_device();
  device->set_name("round");
  device->set_fp32_flops(1e12);
  device->set_bf16_flops(4e12);
  device->set_memory_bandwidth(2e9);
  device->set_product_efficiency(0.5);
  device->set_attention_efficiency(0.25);
  device->set_bandwidth_efficiency(0.5);
  device->set_op_seconds(1e-4);
  cluster.mutable_within_node()->set_bandwidth(4e9);
  cluster.mutable_within_node()->set_efficiency(0.5);
  cluster.mutable_within_node()->set_latency_seconds(1e-5);
  cluster.mutable_between_nodes()->set_bandwidth(1e9);
  cluster.mutable_between_nodes()->set_efficiency(1);
  cluster.mutable_between_nodes()->set_latency_seconds(1e-4);
  cluster.set_overlaps_exchange(true);
  return cluster;
}

CostModel Model(const ClusterConfig& cluster,
                PrecisionConfig::Compute compute = PrecisionConfig::FP32) {
  const absl::StatusOr<CostModel> model = CostModel::Create(cluster, compute);
  CHECK(model.ok()) << model.status();
  return *model;
}

std::vector<int> Ranks(int begin, int end, int stride = 1) {
  std::vector<int> ranks;
  for (int rank = begin; rank < end; rank += stride) ranks.push_back(rank);
  return ranks;
}

Call CallOf(Collective collective, int64_t bytes) {
  return {.collective = collective, .bytes = bytes};
}

TEST(CostModel, AnOpTakesFixedTimeOperationsAndBytes) {
  const CostModel model = Model(RoundCluster());
  Work product{.op = "linear", .kind = Work::Kind::kProduct, .flops = 1e9, .bytes = 1000000};
  EXPECT_DOUBLE_EQ(model.SecondsOf(product), 1e-4 + 2e-3 + 1e-3);
  product.dtype = DType::kBF16;
  EXPECT_DOUBLE_EQ(model.SecondsOf(product), 1e-4 + 5e-4 + 1e-3);
  product.kind = Work::Kind::kAttention;
  EXPECT_DOUBLE_EQ(model.SecondsOf(product), 1e-4 + 1e-3 + 1e-3);
  EXPECT_DOUBLE_EQ(model.SecondsOf({.op = "add", .bytes = 3000000}), 1e-4 + 3e-3);
}

TEST(CostModel, WhatMovesBetweenDeviceAndHostTakesTheirLink) {
  ClusterConfig cluster = RoundCluster();
  cluster.mutable_device()->set_host_bandwidth(1e8);
  cluster.mutable_device()->set_bandwidth_efficiency(0.5);
  const Work work{.op = "adamw.moments", .kind = Work::Kind::kTransfer, .bytes = 1000000};
  EXPECT_DOUBLE_EQ(Model(cluster).SecondsOf(work), 1e-4 + 2e-2);
}

TEST(CostModel, AMeasuredOpOverrulesTheDeviceInItsPrecision) {
  ClusterConfig cluster = RoundCluster();
  OpConfig* op = cluster.mutable_device()->add_ops();
  op->set_name("linear");
  op->set_compute(PrecisionConfig::FP32);
  op->set_seconds(1e-6);
  op->set_seconds_per_flop(1e-12);
  op->set_seconds_per_byte(1e-9);
  const Work work{.op = "linear", .flops = 1e9, .bytes = 1000, .groups = 3};
  EXPECT_DOUBLE_EQ(Model(cluster).SecondsOf(work), 3e-6 + 1e-3 + 1e-6);
  EXPECT_GT(Model(cluster, PrecisionConfig::BF16).SecondsOf(work), 1e-4);
}

TEST(CostModel, ADeviceWithoutThePrecisionIsRefused) {
  const absl::Status status = CostModel::Create(RoundCluster(), PrecisionConfig::FP64).status();
  EXPECT_EQ(status.message(),
            "precision.compute: FP64 has no peak on the device \"round\", use another or give the "
            "device its peak");
}

// 4 MB: 2e9 bytes a second within the node.
TEST(CostModel, GroupsOfOneNodeUseItsLink) {
  const CostModel model = Model(RoundCluster());
  const auto seconds = [&](Collective collective) {
    const ExchangeCost cost =
        model.CostOf(CallOf(collective, 4000000), {.size = 4, .most = 4, .fewest = 4});
    EXPECT_EQ(cost.between_nodes, 0);
    return cost.seconds();
  };
  EXPECT_DOUBLE_EQ(seconds(Collective::kAllGather), 1e-5 + 3 * 4e6 / 2e9);
  EXPECT_DOUBLE_EQ(seconds(Collective::kReduceScatter), 1e-5 + 3 * 1e6 / 2e9);
  EXPECT_DOUBLE_EQ(seconds(Collective::kAllReduce), 2e-5 + 2 * 3 * 1e6 / 2e9);
  EXPECT_DOUBLE_EQ(seconds(Collective::kAllToAllV), 1e-5 + 3 * 1e6 / 2e9);
  EXPECT_DOUBLE_EQ(seconds(Collective::kBroadcast), 1e-5 + 4e6 / 2e9);
  EXPECT_DOUBLE_EQ(seconds(Collective::kBarrier), 1e-5);
  EXPECT_DOUBLE_EQ(seconds(Collective::kSend), 0);
}

// 16 ranks on 4 nodes: what is gathered enters a node once, a quarter through each rank's link.
TEST(CostModel, GroupsOverNodesShareWhatEntersANode) {
  const CostModel model = Model(RoundCluster());
  const auto cost = [&](Collective collective, const std::vector<int>& members) {
    return model.CostOf(CallOf(collective, 16000000), model.SpreadOf(members, 16));
  };
  const std::vector<int> all = Ranks(0, 16);
  // Within: 12 shares of 16 MB at 2e9; between: 3 of them at 1e9.
  EXPECT_DOUBLE_EQ(cost(Collective::kAllGather, all).within_node, 1e-4 + 12 * 16e6 / 2e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kAllGather, all).between_nodes, 1e-4 + 3 * 16e6 / 1e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kReduceScatter, all).seconds(), 1e-4 + 12 * 1e6 / 2e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kBroadcast, all).within_node, 1e-4 + 16e6 / 2e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kBroadcast, all).between_nodes, 1e-4 + 16e6 / 1e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kBarrier, all).between_nodes, 1e-4);
  EXPECT_EQ(cost(Collective::kBarrier, all).within_node, 0);
  // Tokens go to each rank by themselves: 12 of 16 parts leave the node.
  EXPECT_DOUBLE_EQ(cost(Collective::kAllToAllV, all).within_node, 1e-4 + 3e6 / 2e9);
  EXPECT_DOUBLE_EQ(cost(Collective::kAllToAllV, all).between_nodes, 1e-4 + 12e6 / 1e9);
  // One rank of each node: everything leaves it.
  const ExchangeCost spread = cost(Collective::kAllGather, Ranks(0, 16, 4));
  EXPECT_DOUBLE_EQ(spread.between_nodes, 1e-4 + 3 * 16e6 / 1e9);
  EXPECT_EQ(spread.within_node, 0);
}

// Nodes of 4, groups of 3: {0 1 2} {3, 4 5} {6 7, 8} {9 10 11}.
TEST(CostModel, GroupsThatDoNotFillNodesTakeAsLongAsTheSlowest) {
  const CostModel model = Model(RoundCluster());
  for (int first = 0; first < 12; first += 3) {
    const GroupSpread spread = model.SpreadOf(Ranks(first, first + 3), 12);
    EXPECT_EQ(spread.size, 3);
    EXPECT_EQ(spread.most, 3);
    EXPECT_EQ(spread.fewest, 1);
    const ExchangeCost gather = model.CostOf(CallOf(Collective::kAllGather, 1000000), spread);
    EXPECT_DOUBLE_EQ(gather.within_node, 1e-4 + 2 * 1e6 / 2e9);
    EXPECT_DOUBLE_EQ(gather.between_nodes, 1e-4 + 2 * 1e6 / 1e9);  // of 3, to 4 and 5
    const ExchangeCost tokens = model.CostOf(CallOf(Collective::kAllToAllV, 3000000), spread);
    EXPECT_DOUBLE_EQ(tokens.between_nodes, 1e-4 + 2 * 1e6 / 1e9);
  }
  EXPECT_FALSE(model.SpreadOf({0, 1, 2}, 3).leaves_node());
  // Every other rank, 2 each: {0 2} {1 3} {4 6} {5 7}; and 3 each: {0 2, 4} {1 3, 5}.
  EXPECT_FALSE(model.SpreadOf({0, 2}, 8).leaves_node());
  const GroupSpread three = model.SpreadOf({1, 3, 5}, 6);
  EXPECT_EQ(three.most, 2);
  EXPECT_EQ(three.fewest, 1);
}

TEST(CostModel, AMessageIsPaidByItsReceiver) {
  const CostModel model = Model(RoundCluster());
  const auto cost = [&](Collective collective, const std::vector<int>& stages, int num_ranks) {
    return model.CostOf(CallOf(collective, 2000000), model.SpreadOf(stages, num_ranks));
  };
  const ExchangeCost near = cost(Collective::kReceive, {0, 2}, 4);
  EXPECT_DOUBLE_EQ(near.within_node, 1e-5 + 1e-3);
  EXPECT_EQ(near.between_nodes, 0);
  // Stages of 2 ranks: the second one hands to the third on another node.
  EXPECT_DOUBLE_EQ(cost(Collective::kReceive, {0, 2, 4}, 6).seconds(), 1e-4 + 2e-3);
  EXPECT_EQ(cost(Collective::kSend, {0, 2, 4}, 6).seconds(), 0);
}

TEST(CostModel, AddingUpTakesTimeWhereTheDeviceSaysSo) {
  ClusterConfig cluster = RoundCluster();
  cluster.mutable_device()->set_reduction_bandwidth(1e9);
  const Call call = CallOf(Collective::kAllReduce, 4000000);
  const GroupSpread node{.size = 4, .most = 4, .fewest = 4};
  EXPECT_DOUBLE_EQ(Model(cluster).CostOf(call, node).seconds(),
                   Model(RoundCluster()).CostOf(call, node).seconds() + 4e-3);
}

}  // namespace
}  // namespace moebius
