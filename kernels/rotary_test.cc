#include "kernels/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::RandomTensor;

class RotaryTest : public testing::TestWithParam<DType> {};

TEST_P(RotaryTest, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  const int64_t cases[][3] = {{37, 2, 64}, {5, 3, 6}, {1, 1, 2}, {0, 2, 8}};  // T, H, C
  for (const auto& [T, H, C] : cases) {
    const Tensor x = RandomTensor(ctx, GetParam(), {T, H * C}, "x");
    const Tensor positions = test::RandomInts(ctx, {T}, 1 << 20, "positions");
    for (const bool inverse : {false, true}) {
      const Tensor y = RandomTensor(ctx, GetParam(), {T, H * C}, "y");
      const Tensor y_exact = ctx.Exact(y);
      RotaryArgs args = {.x = x,
                         .positions = positions,
                         .head_dim = C,
                         .theta = 10000,
                         .y = y,
                         .inverse = inverse,
                         .accumulate = inverse};
      Rotary(args, ctx);
      args.x = ctx.Exact(x), args.positions = ctx.Exact(positions);
      args.y = y_exact;
      Rotary(args, ctx.host());
      ExpectClose(y, y_exact, 2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RotaryTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

TEST(Rotary, TurnsHalvesOfAHead) {
  Context ctx;
  // One head of 4: pairs (0, 2) by the angle 5 and (1, 3) by 5 / sqrt(100).
  const Tensor x = test::FromValues(ctx, DType::kF64, {1, 4}, {1, 1, 0, 2});
  const Tensor y = ctx.Empty(DType::kF64, {1, 4}, "y");
  Rotary({.x = x,
          .positions = test::FromValues(ctx, DType::kI32, {1}, {5}),
          .head_dim = 4,
          .theta = 100,
          .y = y},
         ctx);
  const std::vector<double> expected = {std::cos(5), std::cos(0.5) - 2 * std::sin(0.5), std::sin(5),
                                        2 * std::cos(0.5) + std::sin(0.5)};
  ExpectClose(y, test::FromValues(ctx, DType::kF64, {1, 4}, expected), 2);
}

}  // namespace
}  // namespace moebius::kernels
