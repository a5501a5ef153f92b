#include "kernels/ops/routing.h"

#include <gtest/gtest.h>

#include "tests/testing/adversarial_routing.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius::ops {
namespace {

using test::Outputs;
using Vars = std::vector<Var>;

class RoutingOpsTest : public testing::Test {
 protected:
  Tensor Random(const Shape& shape, const char* name) {
    return test::RandomTensor(ctx_, DType::kF64, shape, name);
  }
  RoutingPlan Plan(const test::RoutingCase& routing) {
    const auto int32 = [&](const std::vector<double>& values) {
      return test::FromValues(ctx_, DType::kI32, {static_cast<int64_t>(values.size())}, values);
    };
    return kernels::BuildPlan(int32(routing.token_offsets()), int32(routing.experts()),
                              routing.num_experts, ctx_);
  }

  Context ctx_;
};

TEST_F(RoutingOpsTest, GradientsOnEveryRouting) {
  for (const auto& routing : test::AdversarialRoutings(5, 4)) {
    SCOPED_TRACE(routing.name);
    const RoutingPlan plan = Plan(routing);
    const int64_t T = plan.num_tokens(), P = plan.num_pairs();
    const auto permute = [&](Tape& tape, const Vars& in) {
      return Outputs{.values = {Permute(tape, in[0], plan)}};
    };
    const auto combine = [&](Tape& tape, const Vars& in) {
      return Outputs{.values = {Combine(tape, in[0], in[1], plan)}};
    };
    test::CheckGradients(ctx_, permute, {Random({T, 3}, "x")});
    test::CheckGradients(ctx_, combine, {Random({P, 3}, "rows"), Random({P}, "weights")});

    const Tensor scores = Random({T, 4}, "scores");
    for (double& score : scores.span<double>()) score = 0.2 + score * score;
    for (const bool renormalize : {false, true}) {
      const auto weigh = [&](Tape& tape, const Vars& in) {
        return Outputs{.values = {PairWeights(tape, in[0], plan, renormalize, 2.5)}};
      };
      test::CheckGradients(ctx_, weigh, {scores});
    }
  }
}

TEST_F(RoutingOpsTest, APlanIsKeptOnce) {
  const RoutingPlan plan = Plan(test::AdversarialRoutings(5, 4)[3]);
  test::ValueWeights weights;
  Tape tape(ctx_, weights);
  const Var x = tape.Input(Random({5, 3}, "x"));
  (void)Permute(tape, x, plan);
  const int64_t bytes = tape.saved_bytes()["plan"];
  EXPECT_GT(bytes, 0);
  (void)Permute(tape, x, plan);
  EXPECT_EQ(tape.saved_bytes()["plan"], bytes);
}

}  // namespace
}  // namespace moebius::ops
