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
        Context& on = from == DType::kF64 || to == DType::kF64 ? ctx.host() : ctx;
        const Tensor x = RandomTensor(on, from, {n}, "x"), y = on.Empty(to, {n}, "y");
        Cast({.x = x, .y = y}, on);
        ExpectSameBits(y, Convert(on, x, to));
        Cast({.x = x, .y = y, .accumulate = true}, on);
        const Tensor twice = ctx.Exact(x);
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
      Context& on = ctx.of(dtype);
      const Tensor a = RandomTensor(on, dtype, {n}, "a"), b = RandomTensor(on, dtype, {n}, "b");
      const Tensor exact = ctx.Exact(a);
      Add(exact, ctx.Exact(b), exact, ctx.host());
      Add(a, b, a, on);  // in place
      ExpectClose(a, exact, 1);
    }
  }
  const Tensor x = test::FromValues(ctx, DType::kF32, {2}, {3, -4});
  Scale(x, 0.5, ctx);
  EXPECT_EQ(test::ToDoubles(x), (std::vector<double>{1.5, -2}));
}

TEST(Elementwise, Sum) {
  test::DeviceContext ctx;
  for (const int64_t n : {5000, 1, 0}) {
    const Tensor x = RandomTensor(ctx, DType::kF64, {n}, "x");
    const Tensor sum = test::FromValues(ctx, DType::kF64, {1}, {NAN});
    Sum({.x = x, .sum = sum}, ctx);
    double expected = 0;
    for (const double element : test::ToDoubles(x)) expected += element;
    EXPECT_NEAR(test::ToDoubles(sum)[0], expected, 1e-11);
    Sum({.x = x, .sum = sum, .accumulate = true}, ctx);
    EXPECT_NEAR(test::ToDoubles(sum)[0], 2 * expected, 1e-11);
  }
}

TEST(Elementwise, SumOfSquaresDoesNotDependOnThreads) {
  test::DeviceContext one, three({.num_threads = 3});
  for (const DType dtype : kFloats) {
    for (const int64_t n : {100001, 7, 0}) {
      const auto sum = [&](test::DeviceContext& ctx) {
        Context& on = ctx.of(dtype);
        const Tensor sum = on.Empty(DType::kF64, {1}, "sum");
        SumOfSquares(RandomTensor(on, dtype, {n}, "x"), sum, on);
        return sum;
      };
      const Tensor a = sum(one), exact = one.host().Empty(DType::kF64, {1}, "sum");
      ExpectSameBits(a, sum(three));
      SumOfSquares(one.Exact(RandomTensor(one, dtype, {n}, "x")), exact, one.host());
      ExpectClose(a, exact, n);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
