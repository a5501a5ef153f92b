// Steps on a device, where nothing but the report at the end of a step is waited for.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/tensor/copy.h"
#include "tests/testing/device_context.h"
#include "tests/testing/op_counts.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"
#include "tests/testing/tolerance.h"
#include "train/planner/dry_run.h"
#include "train/step.h"

namespace moebius {
namespace {

// By the recipe's experts, or dense.
RunConfig Config(const std::vector<std::string>& overrides, bool dense = false) {
  RunConfig config = TinyConfig(overrides);
  if (dense) {
    config.mutable_model()->clear_moe();
    config.mutable_model()->set_ffn_hidden_size(48);
  }
  return config;
}

const std::string kMomentsOnHost = "optimizer.moments_tier=HOST";

void ExpectOneWait(const RunConfig& config) {
  OnTinySessions(1, config, [](Session& session) {
    Accelerator* const accelerator = session.context().accelerator();
    ASSERT_NE(accelerator, nullptr) << "this test is of a device";
    for (int step = 1; step <= 2; ++step) {
      const int64_t before = accelerator->num_waits();
      const StepResult result = session.Step();
      EXPECT_TRUE(result.updated);
      EXPECT_EQ(accelerator->num_waits() - before, 1) << "step " << step;
      EXPECT_GT(result.loss, 0);
      EXPECT_GT(result.gradient_norm, 0);
    }
  });
}

TEST(DeviceStep, OfADenseModelWaitsOnce) {
  for (const char* precision : {"precision.compute=FP32", "precision.compute=BF16"}) {
    ExpectOneWait(Config({precision}, /*dense=*/true));
  }
}

TEST(DeviceStep, WithMomentsOnTheHostWaitsOnce) {
  ExpectOneWait(Config({"precision.compute=BF16", kMomentsOnHost}));
}

TEST(DeviceStep, OfExpertsWaitsOnce) {
  for (const char* precision : {"precision.compute=FP32", "precision.compute=BF16"}) {
    ExpectOneWait(Config({precision}));
  }
}

TEST(DeviceStep, OfEveryKindOfBalanceWaitsOnce) {
  const std::string biased = "bias_update_rate: 0.01";
  for (const std::string& balance :
       {"loss { scope: GLOBAL_BATCH weight: 0.01 } global_counts: PREVIOUS_STEP " + biased,
        "loss { scope: GLOBAL_BATCH weight: 0.01 } global_counts: EXACT " + biased,
        "loss { scope: GLOBAL_BATCH weight: 0.01 } global_counts: RUNNING " + biased,
        std::string("loss { scope: SEQUENCE weight: 0.01 } z_loss_weight: 0.001"),
        std::string("loss { scope: MICRO_BATCH weight: 0.01 }")}) {
    SCOPED_TRACE(balance);
    ExpectOneWait(Config({"precision.compute=FP32", "model.moe.balance={" + balance + "}"}));
  }
}

// The update writes them: the first step alone makes them from values.
TEST(DeviceStep, FindsItsWeightsInBF16) {
  test::OpCounts counts;
  const RunConfig config = Config({"precision.compute=BF16"});
  const auto body = [&](Session& session) {
    session.Step();
    EXPECT_GT(counts.Take()["pack_weight"], 0);
    for (int step = 2; step <= 3; ++step) {
      session.Step();
      EXPECT_EQ(counts.Take()["pack_weight"], 0) << "step " << step;
    }
    for (const Parameter* parameter : session.model().store().parameters()) {
      for (const auto& [key, image] : parameter->images) {
        EXPECT_EQ(image.version, parameter->version) << parameter->name;
        test::ExpectSameBits(image.tensor,
                             test::Convert(session.context(), parameter->value, DType::kBF16));
      }
    }
  };
  OnTinySessions(1, config, body, {.observer = &counts});
}

TEST(DeviceStepDeathTest, ItsMemoryIsClosedToTheHost) {
  Context context(test::OnTestDevice(Context::Options()));
  const Tensor x = test::FromValues(context, DType::kF32, {1}, {1});
  EXPECT_DEATH(x.data<float>()[0] = 2, "no bytes that the host can read");
  EXPECT_DEATH(*x.device_data<float>() = 2, "");
  EXPECT_EQ(test::ToDoubles(x), std::vector<double>{1});
}

// By a plan of a device that reads weights as they are; kernels have scratch beside that.
TEST(DeviceStep, TakesTheMemoryThatIsPlanned) {
  const std::string fp32 = "precision.compute=FP32", bf16 = "precision.compute=BF16";
  for (std::vector<std::string> overrides :
       {std::vector{fp32}, std::vector{bf16}, std::vector{bf16, kMomentsOnHost}}) {
    SCOPED_TRACE(overrides.back());
    overrides.insert(overrides.end(), {"model.hidden_size=64", "train.sequence_length=64"});
    const RunConfig config = Config(overrides);
    OnTinySessions(1, config, [](Session& session) {
      session.Step();
      session.Step();
      const auto plan = DryRun(session.config(), TinyDataset().vocab_size(), 0, 1, {},
                               {.packs_weights = false, .reads_host_tier = false});
      ASSERT_TRUE(plan.ok()) << plan.status();
      const RankMemory real = MemoryOf(session.context(), Arena("messages", kMeta));
      EXPECT_EQ(plan->parameters, real.parameters);
      EXPECT_EQ(plan->weights, real.weights);
      EXPECT_EQ(plan->gradients, real.gradients);
      EXPECT_EQ(plan->states, real.states);
      EXPECT_EQ(plan->host, real.host);
      const auto planned = static_cast<double>(plan->peak);
      EXPECT_NEAR(static_cast<double>(real.peak) / planned, 1, 0.1);
    });
  }
}

// The same bits wherever the moments are.
TEST(DeviceStep, TrainsAlikeWithMomentsOnTheHost) {
  for (const int zero_stage : {0, 2}) {
    std::vector<std::vector<std::vector<std::byte>>> states;
    for (const char* tier : {"DEVICE", "HOST"}) {
      const RunConfig config =
          Config({"precision.compute=FP32", absl::StrCat("optimizer.moments_tier=", tier),
                  absl::StrCat("parallel.zero_stage=", zero_stage)});
      OnTinySessions(2, config, [&](Session& session) {
        for (int step = 0; step < 3; ++step) session.Step();
        session.context().Wait();
        if (session.mesh().world().rank() == 0)
          states.push_back(StateOf(session.model(), session.optimizer()));
      });
    }
    EXPECT_TRUE(states[0] == states[1]) << "ZeRO " << zero_stage;
  }
}

void ExpectSkippedStep(const RunConfig& config) {
  OnTinySessions(1, config, [](Session& session) {
    EXPECT_TRUE(session.Step().updated);
    Parameter& gain = *session.model().store().parameters().back();
    const std::vector<double> healthy = test::ToDoubles(gain.value);
    const auto fill = [&](const std::vector<double>& values) {
      Context& context = session.context();
      Copy(test::FromValues(context, gain.value.dtype(), gain.value.shape(), values), gain.value);
      ++gain.version;
    };
    fill(std::vector<double>(healthy.size(), std::nan("")));
    const auto before = StateOf(session.model(), session.optimizer());
    const int64_t waits = session.context().accelerator()->num_waits();
    EXPECT_FALSE(session.Step().updated);
    EXPECT_EQ(session.context().accelerator()->num_waits(), waits + 1);
    EXPECT_TRUE(StateOf(session.model(), session.optimizer()) == before);
    fill(healthy);
    EXPECT_TRUE(session.Step().updated);
  });
}

TEST(DeviceStep, IsSkippedOnTheDevice) {
  for (const std::string& tier : {std::string("optimizer.moments_tier=DEVICE"), kMomentsOnHost}) {
    SCOPED_TRACE(tier);
    ExpectSkippedStep(
        Config({"precision.compute=FP32", "model.moe.balance.bias_update_rate=0.01", tier}));
  }
}

}  // namespace
}  // namespace moebius
