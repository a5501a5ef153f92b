#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::ExpectClose;
using test::ExpectSameBits;
using test::RandomTensor;

constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kBF16};

TEST(Elementwise, CastRoundsOnceBetweenAllTypes) {
  test::DeviceContext ctx({.num_threads = 2});
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      for (const int64_t n : {40000, 7, 0}) {
        const Tensor x = RandomTensor(ctx, from, {n}, "x"), y = ctx.Empty(to, {n}, "y");
        Cast({.x = x, .y = y}, ctx);
        ExpectSameBits(y, Convert(ctx, x, to));
        Cast({.x = x, .y = y, .accumulate = true}, ctx);
        Tensor twice = Convert(ctx, x, DType::kF64);
        for (double& element : twice.span<double>()) element *= 2;
        ExpectClose(y, twice, 1);
      }
    }
  }
}

TEST(Elementwise, CastKeepsNotANumberAndInfinity) {
  test::DeviceContext ctx;
  const Tensor x = test::FromValues(ctx, DType::kF32, {3}, {NAN, INFINITY, -INFINITY});
  const Tensor y = ctx.Empty(DType::kBF16, {3}, "y");
  Cast({.x = x, .y = y}, ctx);
  EXPECT_TRUE(std::isnan(test::ToDoubles(y)[0]));
  EXPECT_EQ(test::ToDoubles(y)[1], INFINITY);
  EXPECT_EQ(test::ToDoubles(y)[2], -INFINITY);
}

TEST(Elementwise, AddAndScale) {
  test::DeviceContext ctx({.num_threads = 2});
  for (const DType dtype : kFloats) {
    for (const int64_t n : {40000, 7, 0}) {
      const Tensor a = RandomTensor(ctx, dtype, {n}, "a"), b = RandomTensor(ctx, dtype, {n}, "b");
      const Tensor exact = Convert(ctx, a, DType::kF64);
      Add(exact, Convert(ctx, b, DType::kF64), exact, ctx);
      Add(a, b, a, ctx);  // in place
      ExpectClose(a, exact, 1);
    }
  }
  const Tensor x = test::FromValues(ctx, DType::kF32, {2}, {3, -4});
  Scale(x, 0.5, ctx);
  EXPECT_EQ(test::ToDoubles(x), (std::vector<double>{1.5, -2}));
}

TEST(Elementwise, SumOfSquaresDoesNotDependOnThreads) {
  test::DeviceContext one, three({.num_threads = 3});
  for (const DType dtype : kFloats) {
    for (const int64_t n : {100001, 7, 0}) {
      const Tensor x = RandomTensor(one, dtype, {n}, "x");
      const Tensor a = one.Empty(DType::kF64, {1}, "a"), b = one.Empty(DType::kF64, {1}, "b");
      SumOfSquares(x, a, one);
      SumOfSquares(x, b, three);
      ExpectSameBits(a, b);
      SumOfSquares(Convert(one, x, DType::kF64), b, one);
      ExpectClose(a, b, n);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
