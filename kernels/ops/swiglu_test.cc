#include "kernels/ops/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/activations.h"
#include "kernels/ops/linear.h"
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

struct Weights {
  Parameter *gate, *up, *down;
};

Var OfRows(Tape& tape, const Var& rows, const Tensor& offsets, const Weights& w) {
  return Down(tape, GateAndUp(tape, rows, {.offsets = offsets}, w.gate, w.up), offsets, w.down);
}

Var OfTokens(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
             const Tensor& tokens, const Weights& w) {
  const ProductRows rows = {plan.expert_offsets, tokens};
  return DownToTokens(tape, GateAndUp(tape, x, rows, w.gate, w.up), weights, plan, tokens, w.down);
}

// Tokens of every kind of routing to experts and back.
class SwiGluTest : public testing::Test {
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

TEST_F(SwiGluTest, Gradients) {
  constexpr int64_t D = 2, F = 3;
  for (const auto& routing : test::AdversarialRoutings(5, kExperts)) {
    SCOPED_TRACE(routing.name);
    Use(routing);
    Parameter gate = test::MakeParameter(ctx_, Random({kExperts, F, D}, "gate"));
    Parameter up = test::MakeParameter(ctx_, Random({kExperts, F, D}, "up"));
    Parameter down = test::MakeParameter(ctx_, Random({kExperts, D, F}, "down"));
    const Weights w = {&gate, &up, &down};
    const std::vector<Parameter*> parameters = {&gate, &up, &down};
    const auto of_rows = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {OfRows(tape, in[0], plan_.expert_offsets, w)}};
    };
    const int64_t T = plan_.num_tokens(), P = plan_.num_pairs();
    test::CheckGradients(ctx_, of_rows, {Random({P, D}, "rows")}, parameters);
    const auto of_tokens = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {OfTokens(tape, in[0], in[1], plan_, tokens_, w)}};
    };
    test::CheckGradients(ctx_, of_tokens, {Random({T, D}, "x"), Random({P}, "weights")},
                         parameters);
  }
}

// One matrix for all rows, as in a dense layer.
TEST_F(SwiGluTest, GradientsOfOneMatrix) {
  constexpr int64_t D = 2, F = 3;
  Parameter gate = test::MakeParameter(ctx_, Random({F, D}, "gate"));
  Parameter up = test::MakeParameter(ctx_, Random({F, D}, "up"));
  Parameter down = test::MakeParameter(ctx_, Random({D, F}, "down"));
  for (const int64_t T : {5, 1, 0}) {
    const auto fn = [&](Tape& tape, const Vars& in) {
      return test::Outputs{.values = {OfRows(tape, in[0], Tensor(), {&gate, &up, &down})}};
    };
    test::CheckGradients(ctx_, fn, {Random({T, D}, "x")}, {&gate, &up, &down});
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

// What they stand for: products and activations one after the other, of rows that are copied to
// their experts and combined. They are as far from double precision.
TEST_F(SwiGluTest, AgreeWithSingleOps) {
  kernels::ResidentWeights resident(ctx_);
  constexpr int64_t D = 40, F = 70;
  struct Operands {
    Tensor x, pairs, dy, gate, up, down;
  };
  struct Results {
    Tensor y, dx, dpairs, dgate, dup, ddown;
  };
  enum class Way { kSingleOps, kRows, kTokens };
  const auto run = [&](const Operands& in, Way way) {
    Parameter gate = test::MakeParameter(ctx_, in.gate), up = test::MakeParameter(ctx_, in.up);
    Parameter down = test::MakeParameter(ctx_, in.down);
    const Weights w = {&gate, &up, &down};
    Tape tape(ctx_, resident);
    const Var x = tape.Input(in.x), pairs = tape.Input(in.pairs);
    const Tensor& offsets = plan_.expert_offsets;
    const auto single_ops = [&](const Var& rows) {
      const Var h = SwiGlu(tape, GroupedLinear(tape, rows, offsets, &gate),
                           GroupedLinear(tape, rows, offsets, &up));
      return GroupedLinear(tape, h, offsets, &down);
    };
    const auto copied = [&] {
      const Var rows = Permute(tape, x, plan_);
      return Combine(tape, way == Way::kRows ? OfRows(tape, rows, offsets, w) : single_ops(rows),
                     pairs, plan_);
    };
    const Var y = way == Way::kTokens ? OfTokens(tape, x, pairs, plan_, tokens_, w) : copied();
    const Tape::Seed seed = {y.id(), in.dy};
    tape.Backward({&seed, 1});
    return Results{y.value(),
                   tape.LeafGradient(x.id()),
                   tape.LeafGradient(pairs.id()),
                   gate.gradient,
                   up.gradient,
                   down.gradient};
  };
  for (const auto& routing : test::AdversarialRoutings(67, kExperts)) {
    SCOPED_TRACE(routing.name);
    Use(routing);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(NameOf(dtype));
      const auto draw = [&](const Shape& shape, const char* name) {
        return RandomTensor(ctx_, dtype, shape, name);
      };
      const Shape tokens = {plan_.num_tokens(), D}, outer = {kExperts, F, D};
      const Operands drawn = {
          draw(tokens, "x"),  RandomTensor(ctx_, DType::kF32, {plan_.num_pairs()}, "pairs"),
          draw(tokens, "dy"), draw(outer, "gate"),
          draw(outer, "up"),  draw({kExperts, D, F}, "down")};
      const auto as = [&](DType operand, DType weight) {
        const auto to = [&](const Tensor& x, DType type) { return test::Convert(ctx_, x, type); };
        return Operands{to(drawn.x, operand),   to(drawn.pairs, weight), to(drawn.dy, operand),
                        to(drawn.gate, weight), to(drawn.up, weight),    to(drawn.down, weight)};
      };
      const Results slow = run(as(DType::kF64, DType::kF64), Way::kSingleOps);
      const Operands fast = as(dtype, DType::kF32);
      const Results single_ops = run(fast, Way::kSingleOps);
      for (const Way way : {Way::kRows, Way::kTokens}) {
        const Results fused = run(fast, way);
        for (const auto member : {&Results::y, &Results::dx, &Results::dpairs, &Results::dgate,
                                  &Results::dup, &Results::ddown}) {
          const double allowed =
              test::UnitRoundoff(DType::kF32) + Distance(single_ops.*member, slow.*member);
          EXPECT_LE(Distance(fused.*member, slow.*member), 1.5 * allowed);
          EXPECT_LE(allowed, test::Tolerance(dtype, F * kExperts, /*roundings=*/6));
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::ops
