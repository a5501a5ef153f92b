#include "train/planner/calibrate.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "configs/cluster.h"
#include "train/planner/op_timer.h"

namespace moebius {
namespace {

TEST(OpTimer, AnOpLastsUntilTheNextOneBegins) {
  constexpr std::chrono::milliseconds kPause{5};
  OpTimer timer;
  for (int i = 0; i < 3; ++i) {
    timer.OpBegins({.op = "slow", .bytes = 7});
    std::this_thread::sleep_for(kPause);
    timer.OpBegins({.op = "quick", .flops = 9, .groups = 2});
  }
  timer.Stop();
  std::this_thread::sleep_for(kPause);
  const auto samples = timer.Samples();
  ASSERT_EQ(samples.size(), 2);
  ASSERT_EQ(samples.at("slow").size(), 1);
  EXPECT_EQ(samples.at("slow")[0].bytes, 7);
  EXPECT_GE(samples.at("slow")[0].seconds, 0.005);
  EXPECT_EQ(samples.at("quick")[0].groups, 2);
  EXPECT_EQ(samples.at("quick")[0].flops, 9);
  EXPECT_LT(samples.at("quick")[0].seconds, 0.005);
  timer.Clear();
  EXPECT_TRUE(timer.Samples().empty());
}

TEST(Calibrate, DescribesThisMachineInAFileThatLoads) {
  const absl::StatusOr<ClusterConfig> cluster =
      Calibrate({.compute = PrecisionConfig::BF16, .num_ranks = 2, .threads_per_rank = 1});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->ranks(), 2);
  EXPECT_FALSE(cluster->overlaps_exchange());
  EXPECT_GT(cluster->device().bf16_flops(), 1e6);
  EXPECT_GT(cluster->device().memory_bytes(), 0);
  std::set<std::string> names;
  for (const OpConfig& op : cluster->device().ops()) {
    names.insert(op.name());
    EXPECT_GT(op.seconds() + op.seconds_per_flop() + op.seconds_per_byte(), 0) << op.name();
  }
  for (const char* name :
       {"linear", "linear.gradient", "linear.weight_gradient", "attention", "attention.gradient",
        "adamw", "pack_weight", "softmax", "sigmoid", "linear.sum", "permute", "permute.gradient",
        "combine", "combine.gradient"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  const auto loaded = ParseClusterConfig("saved", PrintCluster(*cluster));
  EXPECT_TRUE(loaded.ok()) << loaded.status();
}

}  // namespace
}  // namespace moebius
