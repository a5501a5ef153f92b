#include "kernels/ops/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/routing.h"
#include "kernels/weight_images.h"
#include "tests/testing/adversarial_routing.h"
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

// Tokens of every kind of routing to experts and back.
class TokensInPlaceTest : public testing::Test {
 protected:
  static constexpr int kExperts = 4;

  void Use(const test::RoutingCase& routing) {
    const auto int32 = [&](const std::vector<double>& values) {
      return test::FromValues(ctx_, DType::kI32, {std::ssize(values)}, values);
    };
    plan_ = kernels::BuildPlan(int32(routing.token_offsets()), int32(routing.experts()), kExperts,
                               ctx_);
    tokens_ = kernels::RowTokens(plan_, ctx_);
  }
  Tensor Random(const Shape& shape, const char* name) {
    return RandomTensor(ctx_, DType::kF64, shape, name);
  }

  Context ctx_{{.num_threads = 2}};
  RoutingPlan plan_;
  Tensor tokens_;
};

TEST_F(TokensInPlaceTest, Gradients) {
  for (const auto& routing : test::AdversarialRoutings(5, kExperts)) {
    SCOPED_TRACE(routing.name);
    Use(routing);
    Parameter w = test::MakeParameter(ctx_, Random({kExperts, 3, 2}, "w"));
    const auto to_experts = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {TokensToExperts(tape, in[0], plan_, tokens_, &w)}};
    };
    test::CheckGradients(ctx_, to_experts, {Random({plan_.num_tokens(), 2}, "x")}, {&w});
    const auto to_tokens = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {ExpertsToTokens(tape, in[0], in[1], plan_, tokens_, &w)}};
    };
    const int64_t P = plan_.num_pairs();
    test::CheckGradients(ctx_, to_tokens, {Random({P, 2}, "rows"), Random({P}, "weights")}, {&w});
  }
}

// Relative, in the L2 norm.
double Distance(const Tensor& actual, const Tensor& exact) {
  const std::vector<double> a = test::ToDoubles(actual), e = test::ToDoubles(exact);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < e.size(); ++i) {
    difference += (a[i] - e[i]) * (a[i] - e[i]);
    norm += e[i] * e[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

// What they stand for: rows that are copied to their experts, and combined. They are as far from
// double precision.
TEST_F(TokensInPlaceTest, AgreesWithCopiedRows) {
  kernels::ResidentWeights weights(ctx_);
  constexpr int64_t D = 40, F = 70;
  struct Results {
    Tensor y, dx, dpairs, dup, ddown;
  };
  const auto run = [&](const Tensor& x, const Tensor& pairs, const Tensor& dy, const Tensor& up,
                       const Tensor& down, bool in_place) {
    Parameter w_up = test::MakeParameter(ctx_, up), w_down = test::MakeParameter(ctx_, down);
    Tape tape(ctx_, weights);
    const Var in = tape.Input(x), in_pairs = tape.Input(pairs);
    const auto copied = [&] {
      const Var hidden = GroupedLinear(tape, Permute(tape, in, plan_), plan_.expert_offsets, &w_up);
      return Combine(tape, GroupedLinear(tape, hidden, plan_.expert_offsets, &w_down), in_pairs,
                     plan_);
    };
    const auto not_copied = [&] {
      const Var hidden = TokensToExperts(tape, in, plan_, tokens_, &w_up);
      return ExpertsToTokens(tape, hidden, in_pairs, plan_, tokens_, &w_down);
    };
    const Var y = in_place ? not_copied() : copied();
    const Tape::Seed seed = {y.id(), dy};
    tape.Backward({&seed, 1});
    return Results{y.value(), tape.LeafGradient(in.id()), tape.LeafGradient(in_pairs.id()),
                   w_up.gradient, w_down.gradient};
  };
  for (const auto& routing : test::AdversarialRoutings(67, kExperts)) {
    SCOPED_TRACE(routing.name);
    Use(routing);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(NameOf(dtype));
      const auto draw = [&](const Shape& shape, const char* name) {
        return RandomTensor(ctx_, dtype, shape, name);
      };
      const auto exact = [&](const Tensor& x) { return test::Convert(ctx_, x, DType::kF64); };
      const auto single = [&](const Tensor& x) { return test::Convert(ctx_, x, DType::kF32); };
      const Tensor x = draw({plan_.num_tokens(), D}, "x"), dy = draw(x.shape(), "dy");
      const Tensor pairs = RandomTensor(ctx_, DType::kF32, {plan_.num_pairs()}, "pairs");
      const Tensor up = draw({kExperts, F, D}, "up"), down = draw({kExperts, D, F}, "down");
      const auto fast = [&](bool in_place) {
        return run(x, pairs, test::Convert(ctx_, dy, dtype), single(up), single(down), in_place);
      };
      const Results slow = run(exact(x), exact(pairs), exact(dy), exact(up), exact(down), false);
      const Results copied = fast(false), in_place = fast(true);
      for (const auto member :
           {&Results::y, &Results::dx, &Results::dpairs, &Results::dup, &Results::ddown}) {
        const double allowed =
            test::UnitRoundoff(DType::kF32) + Distance(copied.*member, slow.*member);
        EXPECT_LE(Distance(in_place.*member, slow.*member), 1.5 * allowed);
        EXPECT_LE(allowed, test::Tolerance(dtype, F * kExperts, /*roundings=*/3));
      }
    }
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
