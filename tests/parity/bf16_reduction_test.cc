// Gradients that travel in BF16 train nearly the same curve. What they are rounded to depends on
// the layout, so this is outside the promise of parity.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/parity/parity_run.h"

namespace moebius {
namespace {

constexpr double kRounding = 1.0 / 256;  // of one number to BF16: 8 bits, to nearest

const Overrides kFp32 = {"train.sequence_length=16", "run.seed=6"};
const Overrides kBf16 = {"train.sequence_length=16", "run.seed=6",
                         "parallel.gradient_reduce_dtype=BF16"};

class Bf16Reduction : public testing::TestWithParam<int> {};

// Of R ranks with gradients g_r, whose sum is g: the error of the sum is at most u * sum |g_r|,
// with u the rounding of one number. Parts of different samples do not cancel, so sum |g_r| is at
// most sqrt(R) |g|; in stage 0 the sum is rounded, too. A step lowers the loss by a product with
// the gradient, which changes by no larger a part of itself, taken twice: for gradient and update.
TEST_P(Bf16Reduction, StaysNearTheCurveOfFp32) {
  constexpr int kRanks = 4;
  const int zero_stage = GetParam();
  const Layout layout{
      .ranks = kRanks, .expert_size = 2, .micro_batch_size = 2, .zero_stage = zero_stage};
  const ParityCurve exact = TrainOnThreads(layout, kFp32);
  const ParityCurve rounded = TrainOnThreads(layout, kBf16);
  const double bound = (std::sqrt(kRanks) + (zero_stage == 0 ? 1 : 0)) * kRounding;

  EXPECT_EQ(rounded.loss[0], exact.loss[0]);  // nothing was updated yet
  EXPECT_NE(rounded.gradient_norm[0], exact.gradient_norm[0]);
  EXPECT_NEAR(rounded.gradient_norm[0], exact.gradient_norm[0], bound * exact.gradient_norm[0]);
  double farthest = 0, lowered = 0;
  for (size_t i = 1; i < exact.loss.size(); ++i) {
    farthest = std::max(farthest, std::abs(rounded.loss[i] - exact.loss[i]));
    lowered = std::max(lowered, exact.loss[0] - exact.loss[i]);
  }
  std::printf(
      "ZeRO stage %d: norm off by %.1e, loss by %.1e after %.2f lower (bounds %.1e, %.1e)\n",
      zero_stage, std::abs(rounded.gradient_norm[0] / exact.gradient_norm[0] - 1), farthest,
      lowered, bound, 2 * bound * lowered);
  EXPECT_GT(farthest, 0);
  EXPECT_LE(farthest, 2 * bound * lowered);
}

INSTANTIATE_TEST_SUITE_P(ZeroStages, Bf16Reduction, testing::Values(0, 1, 2, 3));

}  // namespace
}  // namespace moebius
