#include "optim/learning_rate.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

using Shape = LearningRateSpec::Shape;

LearningRateSpec Spec(Shape shape) {
  return {.shape = shape,
          .peak = 1.0,
          .min_ratio = 0.1,
          .warmup_steps = 10,
          .decay_steps = 20,
          .num_steps = 110};
}

TEST(LearningRate, WarmsUpToThePeak) {
  for (const Shape shape : {Shape::kConstant, Shape::kCosine, Shape::kWarmupStableDecay}) {
    EXPECT_DOUBLE_EQ(LearningRate(Spec(shape), 1), 0.1);
    EXPECT_DOUBLE_EQ(LearningRate(Spec(shape), 5), 0.5);
    EXPECT_DOUBLE_EQ(LearningRate(Spec(shape), 10), 1.0);
  }
}

TEST(LearningRate, CosineHalvesInTheMiddle) {
  EXPECT_NEAR(LearningRate(Spec(Shape::kCosine), 60), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(Spec(Shape::kCosine), 110), 0.1, 1e-12);
  EXPECT_NEAR(LearningRate(Spec(Shape::kCosine), 500), 0.1, 1e-12);
}

TEST(LearningRate, WsdIsStableThenFallsInALine) {
  EXPECT_DOUBLE_EQ(LearningRate(Spec(Shape::kWarmupStableDecay), 90), 1.0);
  EXPECT_NEAR(LearningRate(Spec(Shape::kWarmupStableDecay), 100), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(Spec(Shape::kWarmupStableDecay), 110), 0.1, 1e-12);
}

TEST(LearningRate, WithoutWarmupTheFirstStepHasThePeak) {
  LearningRateSpec spec = Spec(Shape::kCosine);
  spec.warmup_steps = 0;
  EXPECT_NEAR(LearningRate(spec, 1), 1.0, 1e-3);
}

}  // namespace
}  // namespace moebius
