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
          Compute(ctx.host(), ctx.Exact(x), ctx.Exact(w), ctx.Exact(dy), accumulate);
      ExpectClose(actual.y, expected.y, C);
      ExpectClose(actual.dx, expected.dx, C);
      ExpectClose(actual.dw, expected.dw, T * D / C);
    }
  }
}

TEST_P(RmsNormTest, BitsDoNotDependOnThreads) {
  test::DeviceContext one, three({.num_threads = 3});
  const auto compute = [&](Context& ctx) {
    return Compute(ctx, RandomTensor(ctx, GetParam(), {2500, 64}, "x"),
                   RandomTensor(ctx, DType::kF32, {64}, "w"),
                   RandomTensor(ctx, GetParam(), {2500, 64}, "dy"), false);
  };
  const Results a = compute(one), b = compute(three);
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
    const auto compute = [&, C = C, parts = parts](Context& ctx, const Tensor& x, const Tensor& w,
                                                   const Tensor& dy) {
      WholeRows whole = {.width = parts * C,
                         .squares = ctx.Empty(DType::kF64, {x.shape()[0]}, "sums"),
                         .products = ctx.Empty(DType::kF64, {x.shape()[0]}, "sums")};
      RowProducts({.a = x, .b = x, .sums = whole.squares}, ctx);
      RowProducts({.a = dy, .b = x, .w = w, .sums = whole.products}, ctx);
      const auto plus = [&](const Tensor& sums, double of_other_parts) {
        std::vector<double> values = test::ToDoubles(sums);
        for (double& value : values) value += of_other_parts;
        return test::FromValues(ctx, DType::kF64, sums.shape(), values);
      };
      whole.squares = plus(whole.squares, 2 * static_cast<double>(C));
      whole.products = plus(whole.products, -3);
      const Results r = {ctx.Empty(x.dtype(), x.shape(), "y"),
                         ctx.Empty(x.dtype(), x.shape(), "dx"),
                         ctx.Empty(w.dtype(), w.shape(), "dw")};
      RmsNorm(x, w, kEpsilon, r.y, ctx, whole);
      RmsNormInputGradient({dy, x, w, kEpsilon, r.dx, /*accumulate=*/false, whole}, ctx);
      RmsNormWeightGradient({dy, x, kEpsilon, r.dw, /*accumulate=*/false, whole}, ctx);
      return r;
    };
    const Results actual = compute(ctx, x, w, dy);
    const Results expected = compute(ctx.host(), ctx.Exact(x), ctx.Exact(w), ctx.Exact(dy));
    ExpectClose(actual.y, expected.y, C);
    ExpectClose(actual.dx, expected.dx, C);
    ExpectClose(actual.dw, expected.dw, R);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RmsNormTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

TEST(RmsNorm, NormalisesEachSegment) {
  Context ctx;
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
