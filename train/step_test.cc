#include "train/step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "data/held_out_stream.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"
#include "train/batch_loader.h"
#include "train/session.h"

namespace moebius {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Bytes = std::vector<std::byte>;

Bytes BytesOf(const Tensor& x) { return {x.raw(), x.raw() + x.bytes()}; }

// Everything of one rank that an update changes, but for the versions of parameters.
std::vector<Bytes> StateOf(Session& session) {
  return StateOf(session.model(), session.optimizer());
}

AdamWSpec AdamWOf(Session& session) {
  const OptimizerConfig& config = session.config().optimizer();
  return {.beta1 = config.beta1(),
          .beta2 = config.beta2(),
          .epsilon = config.epsilon(),
          .weight_decay = config.weight_decay()};
}

Parameter& Find(Session& session, const std::string& name) {
  for (Parameter* parameter : session.model().store().parameters()) {
    if (parameter->name == name) return *parameter;
  }
  CHECK(false) << "no parameter " << name;
}

// Writes one element of a parameter and returns what was there.
double Exchange(Parameter& parameter, double value) {
  ++parameter.version;
  if (parameter.value.dtype() == DType::kF64) {
    return std::exchange(parameter.value.data<double>()[0], value);
  }
  return std::exchange(parameter.value.data<float>()[0], static_cast<float>(value));
}

struct Poison {
  std::vector<std::string> overrides;  // of the recipe
  std::string parameter;
  double value;
};

// A good step, one that is spoilt by an element of rank 1 alone, another good one; against two good
// steps with the numbers of those.
void ExpectSkipped(const Poison& poison) {
  SCOPED_TRACE(poison.parameter + " " + std::to_string(poison.value));
  const RunConfig config = TinyConfig(poison.overrides);
  std::vector<std::vector<Bytes>> expected(2);
  std::vector<StepResult> expected_result(2);
  OnTinySessions(2, config, [&](Session& session) {
    const int rank = session.mesh().world().rank();
    EXPECT_TRUE(session.Step().updated);
    session.set_steps_done(2);
    expected_result[rank] = session.Step();
    expected[rank] = StateOf(session);
  });
  OnTinySessions(2, config, [&](Session& session) {
    const int rank = session.mesh().world().rank();
    EXPECT_TRUE(session.Step().updated);

    Parameter& parameter = Find(session, poison.parameter);
    const double healthy = rank == 1 ? Exchange(parameter, poison.value) : 0;
    const std::vector<Bytes> before = StateOf(session);
    const StepResult spoilt = session.Step();
    EXPECT_FALSE(spoilt.updated);
    EXPECT_FALSE(std::isfinite(spoilt.loss) && std::isfinite(spoilt.gradient_norm));
    EXPECT_TRUE(StateOf(session) == before);
    EXPECT_EQ(session.steps_done(), 2);

    if (rank == 1) Exchange(parameter, healthy);
    const StepResult next = session.Step();
    EXPECT_TRUE(next.updated);
    EXPECT_EQ(next.loss, expected_result[rank].loss);
    EXPECT_EQ(next.gradient_norm, expected_result[rank].gradient_norm);
    EXPECT_EQ(next.routing.counts, expected_result[rank].routing.counts);
    EXPECT_TRUE(StateOf(session) == expected[rank]);
  });
}

TEST(TrainStep, IsSkippedIfADenseParameterIsNotFinite) {
  for (const char* name : {"final_norm.weight", "layers.0.attention.q.weight"}) {
    for (const double value : {kNan, kInfinity, -kInfinity}) ExpectSkipped({{}, name, value});
  }
}

TEST(TrainStep, IsSkippedIfARouterIsNotFinite) {
  ExpectSkipped({{}, "layers.1.moe.router.weight", kNan});
  ExpectSkipped({{"parallel.expert_size=2"}, "layers.1.moe.router.weight", kNan});
}

TEST(TrainStep, IsSkippedIfAnExpertOfOneRankIsNotFinite) {
  // Every token goes to every expert of the two ranks.
  for (const double value : {kNan, kInfinity}) {
    ExpectSkipped(
        {{"parallel.expert_size=2", "model.moe.top_k=8"}, "layers.0.moe.experts.up.weight", value});
  }
}

TEST(TrainStep, IsSkippedInOtherPrecisions) {
  ExpectSkipped({{"precision.compute=FP32"}, "layers.0.attention.q.weight", kNan});
  ExpectSkipped({{"precision.compute=BF16"}, "layers.0.moe.router.weight", kInfinity});
}

TEST(TrainStep, SkippedLeavesTheRoutingBuffers) {
  for (const char* counts : {"PREVIOUS_STEP", "EXACT", "RUNNING"}) {
    SCOPED_TRACE(counts);
    ExpectSkipped({{"model.moe.balance.bias_update_rate=0.01",
                    std::string("model.moe.balance.global_counts=") + counts},
                   "layers.0.ffn_norm.weight",
                   kNan});
  }
}

// The cross-entropy stays finite; the router's z-loss has a gradient beyond the range of floats.
TEST(TrainStep, IsSkippedIfOnlyTheGradientIsNotFinite) {
  const RunConfig config =
      TinyConfig({"precision.compute=FP32", "model.moe.balance.z_loss_weight=1000"});
  OnTinySessions(2, config, [](Session& session) {
    Parameter& router = Find(session, "layers.1.moe.router.weight");
    for (float& weight : router.value.span<float>()) weight *= 1e19f;
    ++router.version;
    const std::vector<Bytes> before = StateOf(session);
    const StepResult spoilt = session.Step();
    EXPECT_TRUE(std::isfinite(spoilt.loss)) << spoilt.loss;
    EXPECT_FALSE(std::isfinite(spoilt.gradient_norm)) << spoilt.gradient_norm;
    EXPECT_FALSE(spoilt.updated);
    EXPECT_TRUE(StateOf(session) == before);
  });
}

// A step on batches of the test's own.
class OwnStep {
 public:
  OwnStep(Session& session, double clip_norm)
      : session_(session),
        buckets_(session.model().store().parameters(), session.mesh(), session.context()),
        values_(buckets_.buckets(), buckets_.stage(), session.context()),
        optimizer_(AdamWOf(session), buckets_, values_, session.context()),
        step_({.model = session.model(),
               .optimizer = optimizer_,
               .weights = session.weights(),
               .buckets = buckets_,
               .mesh = session.mesh(),
               .context = session.context(),
               .pipeline = {},
               .clip_norm = clip_norm,
               .seed = 1}) {}

  // Held-out samples [first, first + count); none: a micro-batch without a token.
  MicroBatch Batch(int64_t first, int64_t count) {
    const HeldOutStream stream(TinyDataset().domains()[0].held_out.shard, kLength);
    std::vector<Sample> samples;
    std::vector<int64_t> index;
    for (int64_t i = first; i < first + count; ++i) {
      samples.push_back(stream.Get(i));
      index.push_back(i);
    }
    return MakeMicroBatch(samples, index, {.sequence_length = kLength, .dtype = DType::kF64},
                          session_.context());
  }

  StepResult Run(int64_t step, const std::vector<MicroBatch>& batches) {
    session_.context().BeginStep(step, 0.01);
    return step_.Run(batches);
  }

  std::vector<Bytes> State() { return StateOf(session_.model(), optimizer_); }
  GradientBuckets& buckets() { return buckets_; }
  ValueBuckets& values() { return values_; }
  AdamW& optimizer() { return optimizer_; }

 private:
  static constexpr int64_t kLength = 8;

  Session& session_;
  GradientBuckets buckets_;
  ValueBuckets values_;
  AdamW optimizer_;
  TrainStep step_;
};

TEST(TrainStep, IsSkippedIfALossWeightOfOneRankIsNotFinite) {
  for (const double value : {kNan, kInfinity}) {
    OnTinySessions(2, TinyConfig({}), [value](Session& session) {
      const int rank = session.mesh().world().rank();
      OwnStep own(session, /*clip_norm=*/1);
      EXPECT_TRUE(own.Run(1, {own.Batch(rank, 1)}).updated);
      const std::vector<Bytes> before = own.State();
      const MicroBatch batch = own.Batch(2 + rank, 1);
      if (rank == 1) batch.loss_weights.data<double>()[3] = value;
      EXPECT_FALSE(own.Run(2, {batch}).updated);
      EXPECT_TRUE(own.State() == before);
      EXPECT_TRUE(own.Run(3, {own.Batch(2 + rank, 1)}).updated);
    });
  }
}

TEST(TrainStep, ARankWithoutWorkRunsAlong) {
  StepResult alone, together;
  OnTinySessions(1, TinyConfig({}), [&](Session& session) {
    OwnStep own(session, /*clip_norm=*/1);
    alone = own.Run(1, {own.Batch(0, 3)});
  });
  for (const char* layout : {"parallel.expert_size=1", "parallel.expert_size=2"}) {
    OnTinySessions(2, TinyConfig({layout}), [&](Session& session) {
      OwnStep own(session, /*clip_norm=*/1);
      const int rank = session.mesh().world().rank();
      const StepResult result = own.Run(1, {own.Batch(0, rank == 0 ? 3 : 0)});
      if (rank == 1) together = result;
    });
    EXPECT_TRUE(together.updated);
    EXPECT_EQ(together.tokens, alone.tokens);
    EXPECT_NEAR(together.loss, alone.loss, 1e-12 * alone.loss);
    EXPECT_NEAR(together.gradient_norm, alone.gradient_norm, 1e-12 * alone.gradient_norm);
    EXPECT_EQ(together.routing.counts, alone.routing.counts);
  }
}

void ExpectNear(const Tensor& actual, const Tensor& expected) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    const double x = expected.data<double>()[i];
    ASSERT_NEAR(actual.data<double>()[i], x, 1e-14 * std::abs(x)) << i;
  }
}

// Against the same update made by hand: from the same state, with gradients that were scaled before
// the optimizer sees them.
TEST(TrainStep, ClipsToTheNorm) {
  constexpr double kClipNorm = 0.01;
  OnTinySessions(1, TinyConfig({}), [](Session& session) {
    const std::vector<Parameter*> parameters = session.model().store().parameters();
    std::vector<Bytes> start;
    for (const Parameter* parameter : parameters) start.push_back(BytesOf(parameter->value));

    OwnStep own(session, kClipNorm);
    const StepResult result = own.Run(1, {own.Batch(0, 2)});
    ASSERT_GT(result.gradient_norm, 2 * kClipNorm);  // before clipping

    std::vector<Tensor> clipped;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Tensor& value = parameters[i]->value;
      clipped.push_back(session.context().Empty(value.dtype(), value.shape(), "clipped"));
      std::ranges::copy(value.span<double>(), clipped.back().data<double>());
      std::ranges::copy(start[i], value.raw());
      for (double& g : parameters[i]->gradient.span<double>()) {
        g *= kClipNorm / result.gradient_norm;
      }
    }
    AdamW by_hand(AdamWOf(session), own.buckets(), own.values(), session.context());
    session.context().BeginStep(1, 0.01);
    by_hand.Step();
    for (size_t i = 0; i < parameters.size(); ++i) {
      SCOPED_TRACE(parameters[i]->name);
      ExpectNear(clipped[i], parameters[i]->value);
      ExpectNear(own.optimizer().states()[i].m, by_hand.states()[i].m);
      ExpectNear(own.optimizer().states()[i].v, by_hand.states()[i].v);
    }
  });
}

TEST(TrainStep, AShorterGradientIsNotClipped) {
  std::vector<Bytes> unclipped, below;
  for (const double clip_norm : {0.0, 1e6}) {
    OnTinySessions(1, TinyConfig({}), [&](Session& session) {
      OwnStep own(session, clip_norm);
      own.Run(1, {own.Batch(0, 2)});
      (clip_norm == 0 ? unclipped : below) = own.State();
    });
  }
  EXPECT_TRUE(unclipped == below);
}

}  // namespace
}  // namespace moebius
