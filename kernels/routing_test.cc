#include "kernels/routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "tests/testing/adversarial_routing.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;

constexpr int kExperts = 6;

class RoutingTest : public testing::TestWithParam<DType> {
 protected:
  Tensor Random(const Shape& shape, const char* name) {
    return test::RandomTensor(ctx_, GetParam(), shape, name);
  }
  // Scores and weights are F32 beside rows of any dtype.
  Tensor RandomScores(const Shape& shape, const char* name) {
    std::vector<double> scores =
        test::ToDoubles(test::RandomTensor(ctx_, DType::kF32, shape, name));
    for (double& score : scores) score = 0.1 + score * score;
    return test::FromValues(ctx_, DType::kF32, shape, scores);
  }
  Tensor Exact(const Tensor& x) { return ctx_.Exact(x); }
  RoutingPlan Plan(const test::RoutingCase& routing, Context& ctx) {
    const auto int32 = [&](const std::vector<double>& values) {
      return test::FromValues(ctx, DType::kI32, {static_cast<int64_t>(values.size())}, values);
    };
    return BuildPlan(int32(routing.token_offsets()), int32(routing.experts()), routing.num_experts,
                     ctx);
  }

  test::DeviceContext ctx_{{.num_threads = 2}};
  Context& host_ = ctx_.host();
};

TEST_P(RoutingTest, AgreesWithTheReferenceOnEveryRouting) {
  for (const auto& routing : test::AdversarialRoutings(67, kExperts)) {
    SCOPED_TRACE(routing.name);
    // Longer than what a block of a device takes at once, too.
    const int64_t D = routing.name == "ragged" ? 300 : 37;
    const RoutingPlan plan = Plan(routing, ctx_), exact_plan = Plan(routing, host_);
    const int64_t T = plan.num_tokens(), P = plan.num_pairs();
    const Tensor x = Random({T, D}, "x"), rows = Random({P, D}, "rows");
    const Tensor exact_rows = Exact(rows), weights = RandomScores({P}, "weights");
    Permute(x, plan, rows, ctx_);
    Permute(Exact(x), exact_plan, exact_rows, host_);
    test::ExpectSameBits(Exact(rows), exact_rows);

    const Tensor y = Random({T, D}, "y"), exact_y = Exact(y);
    Combine(rows, weights, plan, y, ctx_);
    Combine(exact_rows, Exact(weights), exact_plan, exact_y, host_);
    ExpectClose(y, exact_y, kExperts);

    for (const bool accumulate : {false, true}) {
      const Tensor dx = Random({T, D}, "dx"), exact_dx = Exact(dx);
      PermuteGradient({rows, plan, dx, accumulate}, ctx_);
      PermuteGradient({exact_rows, exact_plan, exact_dx, accumulate}, host_);
      ExpectClose(dx, exact_dx, kExperts);

      const Tensor drows = Random({P, D}, "drows"), exact_drows = Exact(drows);
      const Tensor dweights = RandomScores({P}, "dweights"), exact_dweights = Exact(dweights);
      CombineGradient({x, rows, weights, plan, drows, accumulate, dweights, accumulate}, ctx_);
      CombineGradient({Exact(x), exact_rows, Exact(weights), exact_plan, exact_drows, accumulate,
                       exact_dweights, accumulate},
                      host_);
      ExpectClose(drows, exact_drows, 1);
      ExpectClose(dweights, exact_dweights, D);

      const Tensor by_row = RandomScores({P}, "by_row"), exact_by_row = Exact(by_row);
      WeightsByRow(weights, plan, by_row, ctx_);
      WeightsByRow(Exact(weights), exact_plan, exact_by_row, host_);
      ExpectClose(by_row, exact_by_row, 1);
      const Tensor back = RandomScores({P}, "back"), exact_back = Exact(back);
      WeightsByRowGradient({by_row, plan, back, accumulate}, ctx_);
      WeightsByRowGradient({exact_by_row, exact_plan, exact_back, accumulate}, host_);
      ExpectClose(back, exact_back, 1);
    }
  }
}

TEST_P(RoutingTest, PairWeightsAgreeWithTheReference) {
  std::vector<test::RoutingCase> routings = test::AdversarialRoutings(67, kExperts);
  std::ranges::move(test::AdversarialRoutings(20, 40), std::back_inserter(routings));
  for (const auto& routing : routings) {
    SCOPED_TRACE(routing.name);
    const int64_t E = routing.num_experts;
    const RoutingPlan plan = Plan(routing, ctx_), exact_plan = Plan(routing, host_);
    const int64_t T = plan.num_tokens(), P = plan.num_pairs();
    const Tensor scores = RandomScores({T, E}, "scores"), dweights = RandomScores({P}, "d");
    for (const bool renormalize : {false, true}) {
      const Tensor weights = ctx_.Empty(DType::kF32, {P}, "w"), exact_weights = Exact(weights);
      PairWeights({scores, plan, renormalize, 2.5, weights}, ctx_);
      PairWeights({Exact(scores), exact_plan, renormalize, 2.5, exact_weights}, host_);
      ExpectClose(weights, exact_weights, E);

      const Tensor ds = RandomScores({T, E}, "ds"), exact_ds = Exact(ds);
      PairWeightsGradient({scores, plan, renormalize, 2.5, dweights, ds, renormalize}, ctx_);
      PairWeightsGradient(
          {Exact(scores), exact_plan, renormalize, 2.5, Exact(dweights), exact_ds, renormalize},
          host_);
      // Relative to what cancels where weights are renormalised.
      const std::vector<double> actual = test::ToDoubles(ds), exact = test::ToDoubles(exact_ds);
      for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(actual[i], exact[i], 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RoutingTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace moebius::kernels
