#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

Tensor State(Context& ctx, int64_t step, double clip_scale, bool updates) {
  return test::FromValues(ctx, DType::kF64, {StepState::kSize},
                          {static_cast<double>(step), 0.1, clip_scale, updates ? 1.0 : 0.0, 0, 0});
}

AdamWArgs MakeArgs(Context& ctx, DType dtype, int64_t n) {
  std::vector<double> v = test::ToDoubles(test::RandomTensor(ctx, DType::kF32, {n}, "v"));
  for (double& element : v) element = static_cast<float>(element * element);
  const auto random = [&](const char* name) {
    return test::Convert(ctx, test::RandomTensor(ctx, DType::kF32, {n}, name), dtype);
  };
  return {.value = random("value"),
          .gradient = random("gradient"),
          .m = random("m"),
          .v = test::FromValues(ctx, dtype, {n}, v),
          .state = State(ctx, 3, /*clip_scale=*/0.5, /*updates=*/true),
          .beta1 = 0.9,
          .beta2 = 0.95,
          .epsilon = 1e-8,
          .weight_decay = 0.1};
}

TEST(AdamW, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  for (const int64_t n : {40000, 7, 0}) {
    const AdamWArgs args = MakeArgs(ctx, DType::kF32, n);
    const AdamWArgs exact = MakeArgs(ctx.host(), DType::kF64, n);
    AdamW(args, ctx);
    AdamW(exact, ctx.host());
    test::ExpectClose(args.value, exact.value, 1);
    test::ExpectClose(args.m, exact.m, 1);
    test::ExpectClose(args.v, exact.v, 1);
  }
}

// The first step moves by the learning rate against the sign of the gradient, whatever its size.
TEST(AdamW, FirstStep) {
  Context ctx;
  AdamWArgs args = MakeArgs(ctx, DType::kF64, 2);
  args.value = test::FromValues(ctx, DType::kF64, {2}, {1, 1});
  args.gradient = test::FromValues(ctx, DType::kF64, {2}, {1e-3, -7});
  args.m = ctx.Zeros(DType::kF64, {2}, "m");
  args.v = ctx.Zeros(DType::kF64, {2}, "v");
  args.state = State(ctx, 1, /*clip_scale=*/0.5, /*updates=*/true);
  args.epsilon = 0;
  AdamW(args, ctx);
  // 1 - 0.1 * (+-1 + 0.1)
  EXPECT_NEAR(args.value.data<double>()[0], 0.89, 1e-12);
  EXPECT_NEAR(args.value.data<double>()[1], 1.09, 1e-12);
}

TEST(AdamW, LeavesEverythingWhereTheStepUpdatesNothing) {
  test::DeviceContext ctx;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Context& on = ctx.of(dtype);
    AdamWArgs args = MakeArgs(on, dtype, 100);
    args.state = State(on, 3, /*clip_scale=*/0.5, /*updates=*/false);
    AdamW(args, on);
    const AdamWArgs untouched = MakeArgs(on, dtype, 100);
    test::ExpectSameBits(args.value, untouched.value);
    test::ExpectSameBits(args.m, untouched.m);
    test::ExpectSameBits(args.v, untouched.v);
  }
}

TEST(AdamW, WritesThePlainImage) {
  test::DeviceContext ctx({.num_threads = 2});
  for (const int64_t n : {40000, 7}) {
    AdamWArgs args = MakeArgs(ctx, DType::kF32, n);
    const AdamWArgs::Image image = {WeightFormat::kPlain, test::Convert(ctx, args.v, DType::kBF16)};
    args.images = std::span(&image, 1);
    args.state = State(ctx, 3, /*clip_scale=*/0.5, /*updates=*/false);
    AdamW(args, ctx);
    test::ExpectSameBits(image.tensor, test::Convert(ctx, args.v, DType::kBF16));
    args.state = State(ctx, 3, /*clip_scale=*/0.5, /*updates=*/true);
    AdamW(args, ctx);
    test::ExpectSameBits(image.tensor, test::Convert(ctx, args.value, DType::kBF16));
  }
}

// {step, learning rate, clip scale, updates, loss, gradient norm}
TEST(DecideUpdate, ClipsLongGradientsAndSkipsWhatIsNotFinite) {
  test::DeviceContext ctx;
  const auto decide = [&](double loss, double squares, double clip_norm) {
    const Tensor state = State(ctx, 7, /*clip_scale=*/1, /*updates=*/true);
    DecideUpdate({.loss = test::FromValues(ctx, DType::kF64, {1}, {loss}),
                  .squares = test::FromValues(ctx, DType::kF64, {1}, {squares}),
                  .clip_norm = clip_norm,
                  .state = state},
                 ctx);
    return test::ToDoubles(state);
  };
  using Numbers = std::vector<double>;
  EXPECT_EQ(decide(2, 16, 1), (Numbers{7, 0.1, 0.25, 1, 2, 4}));
  EXPECT_EQ(decide(2, 16, 5), (Numbers{7, 0.1, 1, 1, 2, 4}));
  EXPECT_EQ(decide(2, 16, 0), (Numbers{7, 0.1, 1, 1, 2, 4}));
  EXPECT_EQ(decide(2, INFINITY, 0)[StepState::kUpdates], 0);
  EXPECT_EQ(decide(NAN, 16, 1)[StepState::kUpdates], 0);
  EXPECT_EQ(decide(1, NAN, 1)[StepState::kUpdates], 0);
}

TEST(DecideUpdate, SkipsWhatOverflowed) {
  test::DeviceContext ctx;
  for (const double overflow : {0.0, 1.0, 3.0}) {
    const Tensor state = State(ctx, 7, /*clip_scale=*/1, /*updates=*/true);
    DecideUpdate({.loss = test::FromValues(ctx, DType::kF64, {1}, {2}),
                  .squares = test::FromValues(ctx, DType::kF64, {1}, {16}),
                  .overflow = test::FromValues(ctx, DType::kF64, {1}, {overflow}),
                  .state = state},
                 ctx);
    const double updates = overflow == 0 ? 1 : 0;
    EXPECT_EQ(test::ToDoubles(state), (std::vector<double>{7, 0.1, 1, updates, 2, 4}));
  }
}

}  // namespace
}  // namespace moebius::kernels
