#include "kernels/cpu/loops.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moebius::cpu {
namespace {

TEST(Loops, ExpIsAccurate) {
  for (float x = -87; x <= 88; x += 0.0137f)
    ASSERT_NEAR(Exp(x) / std::exp(static_cast<double>(x)), 1, 0x1p-22) << x;
  EXPECT_EQ(Exp(0), 1);
  EXPECT_LT(Exp(-INFINITY), 2e-38f);
  EXPECT_GT(Exp(INFINITY), 1e38f);
  EXPECT_TRUE(std::isnan(Exp(NAN)));
}

TEST(Loops, PutRoundsAsBF16Does) {
  // Every exponent and sign, with mantissas about halves of the last place; infinities and NaN.
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0x0000u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      BF16 y;
      Put(y, x);
      ASSERT_EQ(y.bits, BF16(x).bits) << x;
    }
  }
}

TEST(Loops, AccumulatingPutAddsAndOtherwiseIgnoresTheSlot) {
  float slot = NAN;
  Put(slot, 2, false);
  EXPECT_EQ(slot, 2);
  Put(slot, 3, true);
  EXPECT_EQ(slot, 5);
}

}  // namespace
}  // namespace moebius::cpu
