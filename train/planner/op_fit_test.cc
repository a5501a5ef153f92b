#include "train/planner/op_fit.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

OpSample Sample(double groups, double flops, double bytes, const OpRates& rates) {
  OpSample sample{groups, flops, bytes, 0};
  sample.seconds = rates.SecondsOf(sample);
  return sample;
}

TEST(FitRates, FindsTheRatesThatMadeTheSamples) {
  const OpRates rates{2e-6, 1e-11, 3e-10};
  const OpRates fit = FitRates({Sample(1, 1e6, 1e5, rates), Sample(8, 1e7, 4e5, rates),
                                Sample(1, 1e9, 2e6, rates), Sample(1, 1e8, 9e6, rates)});
  EXPECT_NEAR(fit.per_group, 2e-6, 1e-12);
  EXPECT_NEAR(fit.per_flop, 1e-11, 1e-17);
  EXPECT_NEAR(fit.per_byte, 3e-10, 1e-16);
}

TEST(FitRates, NoRateIsNegative) {
  // More bytes in less time.
  const OpRates fit = FitRates({{1, 0, 1e6, 2e-3}, {1, 0, 2e6, 1e-3}});
  EXPECT_GT(fit.per_group, 0);
  EXPECT_EQ(fit.per_byte, 0);
  EXPECT_EQ(fit.per_flop, 0);
}

TEST(FitRates, OneSampleIsMetExactly) {
  const OpSample sample{1, 0, 1e6, 1e-3};
  EXPECT_NEAR(FitRates({sample}).SecondsOf(sample), 1e-3, 1e-9);
}

TEST(FitRates, WithoutSamplesThereAreNoRates) {
  const OpRates fit = FitRates({});
  EXPECT_EQ(fit.per_group + fit.per_flop + fit.per_byte, 0);
}

}  // namespace
}  // namespace moebius
