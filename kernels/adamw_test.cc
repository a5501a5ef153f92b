#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

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
          .learning_rate = 0.1,
          .beta1 = 0.9,
          .beta2 = 0.95,
          .epsilon = 1e-8,
          .weight_decay = 0.1,
          .step = 3,
          .gradient_scale = 0.5};
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
  args.step = 1;
  args.epsilon = 0;
  AdamW(args, ctx);
  // 1 - 0.1 * (+-1 + 0.1)
  EXPECT_NEAR(args.value.data<double>()[0], 0.89, 1e-12);
  EXPECT_NEAR(args.value.data<double>()[1], 1.09, 1e-12);
}

}  // namespace
}  // namespace moebius::kernels
