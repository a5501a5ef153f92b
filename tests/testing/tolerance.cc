#include "tests/testing/tolerance.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/random_tensors.h"

namespace moebius::test {

double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kBF16:
      return 0x1p-8;
    default:
      return 0;
  }
}

double Tolerance(DType dtype, int64_t reduction_length, int roundings) {
  const double arithmetic = UnitRoundoff(dtype == DType::kF64 ? DType::kF64 : DType::kF32);
  // 16: a chain of a few operations before and after the sum, each of a few roundings.
  return roundings * UnitRoundoff(dtype) +
         16 * arithmetic * std::sqrt(static_cast<double>(reduction_length) + 1);
}

namespace {

// Within `tolerance`, and a rounding of `magnitudes` where there are any.
void ExpectWithin(double tolerance, const Tensor& actual, const Tensor& expected,
                  const std::vector<double>& magnitudes) {
  ASSERT_EQ(actual.shape(), expected.shape());
  const std::vector<double> a = ToDoubles(actual), e = ToDoubles(expected);
  ASSERT_TRUE(magnitudes.empty() || magnitudes.size() == e.size());
  double sum = 0;
  for (const double x : e) sum += x * x;
  const double rms = e.empty() ? 0 : std::sqrt(sum / static_cast<double>(e.size()));
  for (size_t i = 0; i < e.size(); ++i) {
    const double rounded = magnitudes.empty() ? 0 : UnitRoundoff(actual.dtype()) * magnitudes[i];
    ASSERT_NEAR(a[i], e[i], tolerance * std::max(std::abs(e[i]), rms) + rounded)
        << "element " << i << " of " << actual.shape() << " " << NameOf(actual.dtype());
  }
}

}  // namespace

void ExpectClose(const Tensor& actual, const Tensor& expected, int64_t reduction_length,
                 int roundings) {
  ExpectWithin(Tolerance(actual.dtype(), reduction_length, roundings), actual, expected, {});
}

void ExpectCloseOfRounded(const Tensor& actual, const Tensor& expected, int64_t reduction_length,
                          const Tensor& magnitudes) {
  ExpectWithin(Tolerance(actual.dtype(), reduction_length), actual, expected,
               ToDoubles(magnitudes));
}

void ExpectSameBits(const Tensor& actual, const Tensor& expected) {
  ASSERT_EQ(actual.shape(), expected.shape());
  ASSERT_EQ(actual.dtype(), expected.dtype());
  EXPECT_TRUE(ToBytes(actual) == ToBytes(expected)) << "other bits";
}

}  // namespace moebius::test
