#include "train/generate.h"

#include <gtest/gtest.h>

#include <map>

namespace moebius {
namespace {

const std::vector<double> kLogits = {0.0, 2.0, 1.0, 2.0};

TEST(SampleToken, GreedyTakesTheLowerOfEquals) {
  EXPECT_EQ(SampleToken(kLogits, {.temperature = 0}, 0), 1);
}

TEST(SampleToken, IsAFunctionOfSeedAndIndex) {
  const SamplingOptions options{.temperature = 1, .seed = 3};
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(SampleToken(kLogits, options, i), SampleToken(kLogits, options, i));
  }
}

TEST(SampleToken, FollowsTheSoftmax) {
  constexpr int kDraws = 20000;
  std::map<int32_t, int> seen;
  for (int i = 0; i < kDraws; ++i) ++seen[SampleToken(kLogits, {.temperature = 1, .seed = 5}, i)];
  const double sum = 1 + 2 * std::exp(2.0) + std::exp(1.0);
  EXPECT_NEAR(seen[0], kDraws / sum, 4 * std::sqrt(kDraws / sum));
  EXPECT_NEAR(seen[3], kDraws * std::exp(2.0) / sum, 4 * std::sqrt(kDraws / 2.0));
}

TEST(SampleToken, TopKAndTopPCutTheTail) {
  for (int i = 0; i < 500; ++i) {
    EXPECT_NE(SampleToken(kLogits, {.temperature = 2, .top_k = 3, .seed = 7}, i), 0);
    const int32_t nucleus = SampleToken(kLogits, {.temperature = 1, .top_p = 0.5, .seed = 7}, i);
    EXPECT_TRUE(nucleus == 1 || nucleus == 3);
  }
}

}  // namespace
}  // namespace moebius
