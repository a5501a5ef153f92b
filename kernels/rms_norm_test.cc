#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::ExpectClose;
using test::RandomTensor;

constexpr double kEpsilon = 1e-5;

struct Results {
  Tensor y, dx, dw;
};

// Gradients are added to copies of x and w.
Results Compute(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& dy, bool accumulate) {
  const Results r = {ctx.Empty(x.dtype(), x.shape(), "y"), Convert(ctx, x, x.dtype()),
                     Convert(ctx, w, w.dtype())};
  RmsNorm(x, w, kEpsilon, r.y, ctx);
  RmsNormInputGradient(
      {.dy = dy, .x = x, .w = w, .epsilon = kEpsilon, .dx = r.dx, .accumulate = accumulate}, ctx);
  RmsNormWeightGradient(
      {.dy = dy, .x = x, .epsilon = kEpsilon, .dw = r.dw, .accumulate = accumulate}, ctx);
  return r;
}

class RmsNormTest : public testing::TestWithParam<DType> {};

TEST_P(RmsNormTest, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  // Rows, width, segment: odd sizes, heads, none; enough rows for several blocks, and segments for
  // longer parts of the weight gradient's sum.
  const int64_t cases[][3] = {{5, 37, 37},    {3, 4, 4},     {300, 96, 32},
                              {2500, 64, 64}, {1050, 32, 4}, {0, 8, 8}};
  for (const auto& [T, D, C] : cases) {
    for (const bool accumulate : {false, true}) {
      const Tensor x = RandomTensor(ctx, GetParam(), {T, D}, "x");
      const Tensor dy = RandomTensor(ctx, GetParam(), {T, D}, "dy");
      const Tensor w = RandomTensor(ctx, DType::kF32, {C}, "w");
      const Results actual = Compute(ctx, x, w, dy, accumulate);
      const Results expected =
          Compute(ctx, Convert(ctx, x, DType::kF64), Convert(ctx, w, DType::kF64),
                  Convert(ctx, dy, DType::kF64), accumulate);
      ExpectClose(actual.y, expected.y, C);
      ExpectClose(actual.dx, expected.dx, C);
      ExpectClose(actual.dw, expected.dw, T * D / C);
    }
  }
}

TEST_P(RmsNormTest, BitsDoNotDependOnThreads) {
  test::DeviceContext one, three({.num_threads = 3});
  const Tensor x = RandomTensor(one, GetParam(), {2500, 64}, "x");
  const Tensor dy = RandomTensor(one, GetParam(), {2500, 64}, "dy");
  const Tensor w = RandomTensor(one, DType::kF32, {64}, "w");
  const Results a = Compute(one, x, w, dy, false), b = Compute(three, x, w, dy, false);
  test::ExpectSameBits(a.y, b.y);
  test::ExpectSameBits(a.dx, b.dx);
  test::ExpectSameBits(a.dw, b.dw);
}

// Sums of whole rows, and with them a part of their columns.
TEST_P(RmsNormTest, PartsAgreeWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  const int64_t cases[][3] = {{5, 37, 3}, {300, 96, 2}, {2500, 64, 4}, {0, 8, 2}};
  for (const auto& [R, C, parts] : cases) {
    const Tensor x = RandomTensor(ctx, GetParam(), {R, C}, "x");
    const Tensor dy = RandomTensor(ctx, GetParam(), {R, C}, "dy");
    const Tensor w = RandomTensor(ctx, DType::kF32, {C}, "w");
    const auto compute = [&, C = C, parts = parts](const Tensor& x, const Tensor& w,
                                                   const Tensor& dy) {
      WholeRows whole = {.width = parts * C,
                         .squares = ctx.Empty(DType::kF64, {x.shape()[0]}, "sums"),
                         .products = ctx.Empty(DType::kF64, {x.shape()[0]}, "sums")};
      RowProducts({.a = x, .b = x, .sums = whole.squares}, ctx);
      RowProducts({.a = dy, .b = x, .w = w, .sums = whole.products}, ctx);
      for (double& sum : whole.squares.span<double>()) sum += 2 * static_cast<double>(C);
      for (double& sum : whole.products.span<double>()) sum -= 3;  // other parts
      const Results r = {ctx.Empty(x.dtype(), x.shape(), "y"),
                         ctx.Empty(x.dtype(), x.shape(), "dx"),
                         ctx.Empty(w.dtype(), w.shape(), "dw")};
      RmsNorm(x, w, kEpsilon, r.y, ctx, whole);
      RmsNormInputGradient({dy, x, w, kEpsilon, r.dx, /*accumulate=*/false, whole}, ctx);
      RmsNormWeightGradient({dy, x, kEpsilon, r.dw, /*accumulate=*/false, whole}, ctx);
      return r;
    };
    const auto exact = [&](const Tensor& of) { return Convert(ctx, of, DType::kF64); };
    const Results actual = compute(x, w, dy), expected = compute(exact(x), exact(w), exact(dy));
    ExpectClose(actual.y, expected.y, C);
    ExpectClose(actual.dx, expected.dx, C);
    ExpectClose(actual.dw, expected.dw, R);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RmsNormTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

TEST(RmsNorm, NormalisesEachSegment) {
  test::DeviceContext ctx;
  const Tensor x = test::FromValues(ctx, DType::kF64, {1, 4}, {3, 4, 0, -2});
  const Tensor w = test::FromValues(ctx, DType::kF64, {2}, {1, 10});
  const Tensor y = ctx.Empty(DType::kF64, {1, 4}, "y");
  RmsNorm(x, w, 0, y, ctx);
  const double r = std::sqrt(2.0);
  const Tensor expected =
      test::FromValues(ctx, DType::kF64, {1, 4}, {3 * r / 5, 40 * r / 5, 0, -10 * r});
  ExpectClose(y, expected, 2);
}

}  // namespace
}  // namespace moebius::kernels
