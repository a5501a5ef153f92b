// Training by exchanges of a fixed length (parallel.exchange_capacity), beside exact ones.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/random_tensors.h"
#include "tests/testing/tiny_session.h"

namespace moebius {
namespace {

constexpr int kSteps = 3;
constexpr double kCapacity = 0.25;  // less than even routing needs: the first step overflows

using Overrides = std::vector<std::string>;
using State = std::vector<std::vector<std::byte>>;

struct Training {
  std::vector<StepResult> steps;
  std::vector<DomainEvaluation> evaluations;
  State state;

  int64_t num_retries() const {
    int64_t sum = 0;
    for (const StepResult& step : steps) sum += step.num_retries;
    return sum;
  }
};

// By rank.
std::vector<Training> Train(int ranks, const RunConfig& config) {
  std::vector<Training> runs(ranks);
  OnTinySessions(ranks, config, [&](Session& session) {
    Training& run = runs[session.mesh().world().rank()];
    for (int i = 0; i < kSteps; ++i) run.steps.push_back(session.Step());
    run.evaluations = session.Evaluate();
    run.state = StateOf(session.model(), session.optimizer());
  });
  return runs;
}

void ExpectSameTraining(int ranks, Overrides overrides) {
  SCOPED_TRACE(testing::PrintToString(overrides));
  const std::vector<Training> exact = Train(ranks, TinyConfig(overrides));
  overrides.push_back("parallel.exchange_capacity=" + std::to_string(kCapacity));
  const std::vector<Training> bounded = Train(ranks, TinyConfig(overrides));
  for (int r = 0; r < ranks; ++r) {
    EXPECT_EQ(exact[r].num_retries(), 0);
    EXPECT_GT(bounded[r].steps[0].num_retries, 0);
    EXPECT_EQ(bounded[r].num_retries(), bounded[0].num_retries());
    for (int i = 0; i < kSteps; ++i) {
      const StepResult &e = exact[r].steps[i], &b = bounded[r].steps[i];
      EXPECT_TRUE(b.updated) << "step " << i;
      EXPECT_EQ(b.loss, e.loss) << "step " << i;
      EXPECT_EQ(b.gradient_norm, e.gradient_norm) << "step " << i;
      EXPECT_EQ(b.tokens, e.tokens);
      EXPECT_EQ(b.routing.balance_loss, e.routing.balance_loss);
      EXPECT_EQ(b.routing.counts, e.routing.counts);
    }
    for (size_t i = 0; i < exact[r].evaluations.size(); ++i) {
      EXPECT_EQ(bounded[r].evaluations[i].loss, exact[r].evaluations[i].loss);
    }
    EXPECT_TRUE(bounded[r].state == exact[r].state) << "rank " << r;
  }
}

TEST(BoundedDispatch, TrainsTheSameBits) {
  for (const char* precision :
       {"precision.compute=FP64", "precision.compute=FP32", "precision.compute=BF16"}) {
    ExpectSameTraining(2, {precision, "parallel.expert_size=2"});
    ExpectSameTraining(4, {precision, "parallel.expert_size=4"});
    ExpectSameTraining(4, {precision, "parallel.expert_size=2", "parallel.expert_tensor_size=2"});
  }
}

// What is counted, and what follows the counts, forgets discarded attempts.
TEST(BoundedDispatch, RetriesLeaveNoTraceInTheBalance) {
  for (const char* counts : {"PREVIOUS_STEP", "EXACT", "RUNNING"}) {
    ExpectSameTraining(
        2, {"precision.compute=FP32", "parallel.expert_size=2",
            std::string("model.moe.balance={loss { weight: 0.05 } bias_update_rate: 0.01 "
                        "z_loss_weight: 0.01 global_counts: ") +
                counts + "}"});
  }
}

TEST(BoundedDispatch, GoesWithEveryOtherLayout) {
  const std::string fp32 = "precision.compute=FP32", experts = "parallel.expert_size=2";
  ExpectSameTraining(2, {fp32, experts, "parallel.zero_stage=3", "parallel.recompute=FULL"});
  ExpectSameTraining(2, {fp32, experts, "parallel.zero_stage=2", "parallel.recompute=SELECTIVE"});
  ExpectSameTraining(2,
                     {fp32, experts, "parallel.tensor_size=2", "model.moe.num_shared_experts=1"});
  ExpectSameTraining(4, {fp32, experts, "parallel.pipeline_size=2"});
  ExpectSameTraining(
      4, {fp32, experts, "parallel.context_size=2", "model.moe.debug_routing=SOME_EMPTY"});
  ExpectSameTraining(4, {fp32, "parallel.expert_size=4", "model.moe.debug_routing=ALL_TO_ONE"});
}

// Room doubles until there is enough, is kept, and is never more than all rows need.
TEST(BoundedDispatch, RoomGrowsAndStays) {
  RunConfig config = TinyConfig({"parallel.expert_size=4", "parallel.exchange_capacity=0.4",
                                 "model.moe.debug_routing=ALL_TO_ONE", "model.moe.top_k=1"});
  for (const Training& run : Train(4, config)) {
    EXPECT_EQ(run.steps[0].num_retries, 4);  // 0.8, 1.6, 3.2, 4
    EXPECT_EQ(run.steps[0].old_exchange_capacity, 0.4);
    EXPECT_EQ(run.steps[0].exchange_capacity, 4);
    for (int i = 1; i < kSteps; ++i) {
      EXPECT_EQ(run.steps[i].num_retries, 0);
      EXPECT_EQ(run.steps[i].exchange_capacity, 4);
    }
  }
}

TEST(BoundedDispatch, RoomThatSufficesNeedsNoRetry) {
  for (const Training& run :
       Train(2, TinyConfig({"parallel.expert_size=2", "parallel.exchange_capacity=2"}))) {
    EXPECT_EQ(run.num_retries(), 0);
    EXPECT_EQ(run.steps.back().exchange_capacity, 2);
  }
}

// A step that is not finite is reported as that, once its rows have room.
TEST(BoundedDispatch, NanIsReportedAsNan) {
  for (const char* precision : {"precision.compute=FP64", "precision.compute=BF16"}) {
    const RunConfig config =
        TinyConfig({precision, "parallel.expert_size=2", "parallel.exchange_capacity=0.25"});
    OnTinySessions(2, config, [](Session& session) {
      EXPECT_TRUE(session.Step().updated);
      Parameter& norm = *session.model().store().parameters().back();
      const std::vector<double> healthy = test::ToDoubles(norm.value);
      const auto fill = [&](double x) {
        norm.value.dtype() == DType::kF64 ? norm.value.data<double>()[0] = x
                                          : norm.value.data<float>()[0] = static_cast<float>(x);
        ++norm.version;
      };
      fill(std::numeric_limits<double>::quiet_NaN());
      const State before = StateOf(session.model(), session.optimizer());
      const StepResult spoilt = session.Step();
      EXPECT_FALSE(spoilt.updated);
      EXPECT_TRUE(std::isnan(spoilt.loss));
      EXPECT_TRUE(StateOf(session.model(), session.optimizer()) == before);
      fill(healthy[0]);
      EXPECT_TRUE(session.Step().updated);
    });
  }
}

}  // namespace
}  // namespace moebius
