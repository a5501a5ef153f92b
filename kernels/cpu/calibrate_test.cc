#include "kernels/cpu/calibrate.h"

#include <gtest/gtest.h>

namespace moebius::cpu {
namespace {

TEST(Calibrate, RatesAreOfTheRightOrder) {
  Context context({.num_threads = 1});
  const double f32 = PeakFlops(DType::kF32, context);
  EXPECT_GT(f32, 1e9);
  EXPECT_LT(f32, 1e12);
  EXPECT_GT(PeakFlops(DType::kBF16, context), f32 / 4);
  EXPECT_LT(PeakFlops(DType::kF64, context), f32);
  const double triad = TriadBandwidth(context);
  EXPECT_GT(triad, 1e8);
  EXPECT_LT(triad, 1e12);
}

}  // namespace
}  // namespace moebius::cpu
