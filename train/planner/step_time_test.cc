#include "train/planner/step_time.h"

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "model/spec.h"
#include "tests/testing/tiny_session.h"

namespace moebius {
namespace {

constexpr int64_t kVocabulary = 257;

// `latency`: of an exchange, in seconds.
CostModel Cost(double latency = 0, double host_bandwidth = 0) {
  ClusterConfig cluster;
  cluster.set_ranks(8);
  cluster.set_ranks_per_node(4);
  DeviceConfig* device = cluster.mutable_device();
  device->set_fp64_flops(1e9);
  device->set_memory_bandwidth(1e9);
  device->set_product_efficiency(1);
  device->set_attention_efficiency(1);
  device->set_bandwidth_efficiency(1);
  device->set_host_bandwidth(host_bandwidth);
  for (LinkConfig* link : {cluster.mutable_within_node(), cluster.mutable_between_nodes()}) {
    link->set_bandwidth(1e9);
    link->set_efficiency(1);
    link->set_latency_seconds(latency);
  }
  cluster.set_overlaps_exchange(true);
  const absl::StatusOr<CostModel> model = CostModel::Create(cluster, PrecisionConfig::FP64);
  CHECK(model.ok()) << model.status();
  return *model;
}

StepPlan Plan(const RunConfig& config, int num_ranks, double latency = 0, bool is_quick = false) {
  const auto plan = PlanStep(config, kVocabulary, num_ranks, Cost(latency), {.is_quick = is_quick});
  CHECK(plan.ok()) << plan.status();
  return *plan;
}

double WorkOf(const StagePlan& stage) { return stage.micro_batches.total() + stage.rest.total(); }

double FlopsOf(const StepPlan& plan, const std::vector<const char*>& ops) {
  double flops = 0;
  for (const char* op : ops) flops += plan.stages[0].ops.at(op).flops;
  return flops;
}

// Operations of the step are those that MFU counts.
void ExpectThreeForwardsInProducts(const RunConfig& config) {
  const StepPlan plan = Plan(config, 1);
  const int64_t S = config.train().sequence_length();
  const ModelSpec model = *ModelSpec::FromProto(config.model(), kVocabulary);
  const double attention =
      2.0 * static_cast<double>(S * model.num_heads * model.head_dim * model.num_layers);
  const double products = model.ForwardFlopsPerToken(S) - attention;
  EXPECT_NEAR(FlopsOf(plan, {"linear", "linear.gradient", "linear.swiglu.gradient",
                             "linear.weight_gradient", "linear.sum"}),
              3 * products * plan.tokens, 1e-9 * products * plan.tokens);
  // A query sees itself too; backward has five products to forward's two.
  const double seen = static_cast<double>(S + 1) / static_cast<double>(S);
  EXPECT_NEAR(FlopsOf(plan, {"attention"}), seen * attention * plan.tokens, 1);
  EXPECT_NEAR(FlopsOf(plan, {"attention.gradient"}), 2.5 * seen * attention * plan.tokens, 1);
  EXPECT_DOUBLE_EQ(plan.model_flops, 3 * model.ForwardFlopsPerToken(S) * plan.tokens);
}

TEST(PlanStep, CountsThreeForwardsInProducts) {
  ExpectThreeForwardsInProducts(TinyConfig({}));
  ExpectThreeForwardsInProducts(TinyConfig({"train.global_batch_size=64"}));  // 8 run dry
}

// Moments leave the device for its host, and a step is longer by their way.
TEST(PlanStep, MomentsMayBeInAnotherMemory) {
  const auto plan = [](const char* tier, double host_bandwidth) {
    const auto plan = PlanStep(
        TinyConfig({absl::StrCat("optimizer.moments_tier=", tier), "parallel.bucket_bytes=20000"}),
        kVocabulary, 1, Cost(0, host_bandwidth));
    CHECK(plan.ok()) << plan.status();
    return *plan;
  };
  const StepPlan beside = plan("DEVICE", 1e6), apart = plan("HOST", 1e6), one = plan("HOST", 0);
  const int64_t states = beside.stages[0].memory.states;
  EXPECT_GT(states, 0);
  EXPECT_EQ(beside.host_bytes(), 0);
  EXPECT_EQ(apart.stages[0].memory.states, 0);
  EXPECT_EQ(apart.host_bytes(), states);
  EXPECT_LE(apart.peak_bytes(), beside.peak_bytes() - states / 2);
  EXPECT_NEAR(apart.seconds - beside.seconds, 1e-6 * static_cast<double>(states), 1e-9);
  // On CPUs both are one memory: nothing moves.
  EXPECT_EQ(one.host_bytes(), 0);
  EXPECT_EQ(one.stages[0].memory.states, states);
  EXPECT_EQ(one.peak_bytes(), beside.peak_bytes());
  EXPECT_DOUBLE_EQ(one.seconds, beside.seconds);
}

// Also of the micro-batches that did not run dry, and of the pass that counts.
TEST(PlanStep, OpsAddUpToTheStep) {
  const auto plan = [](int batch) {
    return Plan(
        TinyConfig({"parallel.pipeline_size=2", "parallel.expert_size=2", "parallel.zero_stage=3",
                    absl::StrCat("train.global_batch_size=", batch),
                    "model.moe.balance={loss { } global_counts: EXACT}"}),
        4, 0.001);
  };
  const StepPlan all = plan(16),
                 some = plan(64);  // micro-batches of a rank run dry: 8, and 8 of 32
  for (const int s : {0, 1}) {
    double seconds = 0;
    for (const auto& [name, op] : some.stages[s].ops) seconds += op.seconds;
    EXPECT_NEAR(seconds, WorkOf(some.stages[s]), 1e-9 * seconds);
    EXPECT_EQ(some.stages[s].ops.at("all-to-all").count,
              4 * all.stages[s].ops.at("all-to-all").count);
  }
}

TEST(PlanStep, OneRankComputesAllTheTime) {
  const StepPlan plan = Plan(TinyConfig({}), 1);
  ASSERT_EQ(plan.stages.size(), 1);
  const StagePlan& stage = plan.stages[0];
  EXPECT_NEAR(plan.seconds, stage.micro_batches.compute + stage.rest.compute, 1e-9 * plan.seconds);
  EXPECT_EQ(stage.micro_batches.exchange + stage.rest.exchange, 0);
  EXPECT_NEAR(stage.bubble, 0, 1e-9 * plan.seconds);
  EXPECT_GT(stage.rest.compute, 0);
  EXPECT_GT(plan.peak_bytes(), 0);
}

TEST(PlanStep, ExchangesTakeTime) {
  const RunConfig config = TinyConfig({"parallel.expert_size=2"});
  const StepPlan fast = Plan(config, 2), slow = Plan(config, 2, 1);
  // Two exchanges forward and two backward in each of two layers and micro-batches, at least.
  EXPECT_GT(slow.seconds, fast.seconds + 16);
  EXPECT_GT(slow.stages[0].micro_batches.exchange, 16);
  EXPECT_DOUBLE_EQ(slow.stages[0].micro_batches.compute, fast.stages[0].micro_batches.compute);
}

// The pass that counts for EXACT waits in its exchanges, and for other stages.
TEST(PlanStep, CountingComputesAndWaits) {
  const auto plan = [](const char* counts, int stages, double latency) {
    const RunConfig config =
        TinyConfig({"model.moe.balance.loss=[{scope: GLOBAL_BATCH}]", "parallel.expert_size=2",
                    absl::StrCat("model.moe.balance.global_counts=", counts),
                    "train.global_batch_size=32", absl::StrCat("parallel.pipeline_size=", stages)});
    return Plan(config, 2 * stages, latency);
  };
  const StepPlan fast = plan("EXACT", 1, 0), slow = plan("EXACT", 1, 1);
  EXPECT_DOUBLE_EQ(slow.stages[0].rest.compute, fast.stages[0].rest.compute);
  // In 2 layers and 16 micro-batches, to the experts at least.
  EXPECT_GT(slow.stages[0].rest.exchange, plan("RUNNING", 1, 1).stages[0].rest.exchange + 32);
  // What one of two stages counts, the other waits for at first.
  const StepPlan exact = plan("EXACT", 2, 0), running = plan("RUNNING", 2, 0);
  const double counting = exact.stages[0].rest.total() - running.stages[0].rest.total();
  EXPECT_GT(counting, 0);
  EXPECT_GT(exact.seconds, running.seconds + counting * 33 / 32);
  EXPECT_GT(exact.stages[0].bubble, running.stages[0].bubble);
}

// Stages of two ranks on nodes of four: only the second and the third one are on different nodes.
TEST(PlanStep, AMessageTakesAsLongAsTheSlowest) {
  const RunConfig config =
      TinyConfig({"parallel.pipeline_size=3", "model.num_layers=3", "train.global_batch_size=12"});
  const auto seconds = [&](double between_nodes) {
    ClusterConfig cluster = Cost().cluster();
    cluster.mutable_between_nodes()->set_latency_seconds(between_nodes);
    const CostModel cost = *CostModel::Create(cluster, PrecisionConfig::FP64);
    return PlanStep(config, kVocabulary, 6, cost)->timeline.makespan;
  };
  EXPECT_GT(seconds(1), seconds(0) + 2);
}

TEST(PlanStep, StagesWaitForEachOther) {
  const RunConfig config = TinyConfig({"parallel.pipeline_size=2", "train.global_batch_size=16"});
  const StepPlan plan = Plan(config, 2);
  ASSERT_EQ(plan.stages.size(), 2);
  ASSERT_EQ(plan.timeline.stages.size(), 2);
  for (const StagePlan& stage : plan.stages) {
    EXPECT_GE(stage.bubble, 0);
    EXPECT_NEAR(plan.seconds, stage.micro_batches.total() + stage.rest.total() + stage.bubble,
                1e-9 * plan.seconds);
  }
  EXPECT_GT(plan.stages[0].bubble + plan.stages[1].bubble, 0);
  // Half of the layers each, and one of them the head.
  EXPECT_GT(plan.stages[1].micro_batches.compute, plan.stages[0].micro_batches.compute);
  EXPECT_EQ(plan.slowest_stage, 1);
}

// Many micro-batches run dry a few times, and stand for all.
TEST(PlanStep, TimeGrowsWithTheMicroBatches) {
  const auto seconds = [](int batch, bool is_quick) {
    const RunConfig config = TinyConfig({absl::StrCat("train.global_batch_size=", batch)});
    return Plan(config, 1, 0, is_quick).seconds;
  };
  const double of_one = (seconds(8, false) - seconds(4, false)) / 4;
  EXPECT_NEAR(seconds(64, false), seconds(4, false) + 60 * of_one, 1e-6);
  EXPECT_NEAR(seconds(64, true), seconds(64, false), 1e-6);
}

TEST(PlanStep, AQuickPlanOfAlikeStagesIsTheSame) {
  const RunConfig config =
      TinyConfig({"parallel.pipeline_size=4", "model.num_layers=4", "train.global_batch_size=32"});
  const StepPlan plan = Plan(config, 4), quick = Plan(config, 4, 0, true);
  EXPECT_NEAR(quick.seconds, plan.seconds, 1e-6 * plan.seconds);
  EXPECT_EQ(quick.peak_bytes(), plan.peak_bytes());
}

TEST(PlanStep, RefusesAnIllegalSchedule) {
  const RunConfig config =
      TinyConfig({"parallel.pipeline_size=2", "parallel.pipeline_schedule=ZB_V"});
  EXPECT_EQ(PlanStep(config, kVocabulary, 2, Cost()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace moebius
