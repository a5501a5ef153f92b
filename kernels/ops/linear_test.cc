#include "kernels/ops/linear.h"

#include <gtest/gtest.h>

#include "kernels/weight_images.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::ops {
namespace {

using test::RandomTensor;
using Vars = std::vector<Var>;

TEST(Linear, Gradients) {
  Context ctx;
  for (const int64_t T : {5, 1, 0}) {
    Parameter w = test::MakeParameter(ctx, RandomTensor(ctx, DType::kF64, {9, 3}, "w"));
    const auto fn = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {Linear(tape, in[0], &w)}};
    };
    test::CheckGradients(ctx, fn, {RandomTensor(ctx, DType::kF64, {T, 3}, "x")}, {&w});
  }
}

TEST(Linear, GradientsOfAWeightUsedTwice) {
  Context ctx;
  Parameter w = test::MakeParameter(ctx, RandomTensor(ctx, DType::kF64, {4, 4}, "w"));
  const auto fn = [&](Tape& tape, const Vars& in) {
    return test::Outputs{.values = {Linear(tape, Linear(tape, in[0], &w), &w)}};
  };
  test::CheckGradients(ctx, fn, {RandomTensor(ctx, DType::kF64, {3, 4}, "x")}, {&w});
}

TEST(GroupedLinear, Gradients) {
  Context ctx;
  // Ragged with empty groups, all rows in one group, no rows.
  for (const std::vector<double>& offsets :
       {std::vector<double>{0, 2, 2, 7}, {0, 0, 7, 7}, {0, 0, 0, 0}}) {
    const Tensor at = test::FromValues(ctx, DType::kI32, {4}, offsets);
    const auto R = static_cast<int64_t>(offsets.back());
    Parameter w = test::MakeParameter(ctx, RandomTensor(ctx, DType::kF64, {3, 5, 2}, "w"));
    const auto fn = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {GroupedLinear(tape, in[0], at, &w)}};
    };
    test::CheckGradients(ctx, fn, {RandomTensor(ctx, DType::kF64, {R, 2}, "x")}, {&w});
  }
}

// The whole path of F32 and BF16: packed images, input gradient, weight gradient.
TEST(GroupedLinear, AgreesWithDoublePrecision) {
  Context ctx({.num_threads = 2});
  kernels::ResidentWeights weights(ctx);
  const Tensor offsets = test::FromValues(ctx, DType::kI32, {4}, {0, 20, 20, 53});
  struct Results {
    Tensor y, dx, dw;
  };
  const auto run = [&](const Tensor& x, const Tensor& dy, const Tensor& value) {
    Parameter w = test::MakeParameter(ctx, value);
    Tape tape(ctx, weights);
    const Var input = tape.Input(x);
    const Var y = GroupedLinear(tape, input, offsets, &w);
    const Tape::Seed seed = {y.id(), dy};
    tape.Backward({&seed, 1});
    return Results{y.value(), tape.LeafGradient(input.id()), w.gradient};
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = RandomTensor(ctx, dtype, {53, 40}, "x");
    const Tensor dy = RandomTensor(ctx, dtype, {53, 70}, "dy");
    const Tensor w = RandomTensor(ctx, dtype, {3, 70, 40}, "w");
    const auto exact = [&](const Tensor& value) { return test::Convert(ctx, value, DType::kF64); };
    const Results fast = run(x, dy, test::Convert(ctx, w, DType::kF32));
    const Results slow = run(exact(x), exact(dy), exact(w));
    EXPECT_EQ(fast.y.dtype(), dtype);
    test::ExpectClose(fast.y, slow.y, 40);
    test::ExpectClose(fast.dx, slow.dx, 70);
    test::ExpectClose(fast.dw, slow.dw, 33);
  }
}

}  // namespace
}  // namespace moebius::ops
