#include "kernels/routing_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/testing/adversarial_routing.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"

namespace moebius::kernels {
namespace {

using test::FromValues;
using test::ToDoubles;
using Numbers = std::vector<double>;

Tensor Int32(Context& ctx, const Numbers& values) {
  return FromValues(ctx, DType::kI32, {static_cast<int64_t>(values.size())}, values);
}

TEST(RoutingPlan, GroupsPairsByExpert) {
  test::DeviceContext ctx;
  const RoutingPlan plan = BuildPlan(Int32(ctx, {0, 1, 1, 3}), Int32(ctx, {1, 0, 1}), 2, ctx);
  EXPECT_EQ(ToDoubles(plan.expert_offsets), (Numbers{0, 1, 3}));
  EXPECT_EQ(ToDoubles(plan.row), (Numbers{1, 0, 2}));
  EXPECT_EQ(plan.num_tokens(), 3);
  EXPECT_EQ(plan.num_pairs(), 3);
  EXPECT_EQ(plan.num_experts(), 2);
}

TEST(RoutingPlan, RowsAreAStablePermutation) {
  test::DeviceContext ctx;
  for (const auto& routing : test::AdversarialRoutings(23, 6)) {
    SCOPED_TRACE(routing.name);
    const RoutingPlan plan = BuildPlan(Int32(ctx, routing.token_offsets()),
                                       Int32(ctx, routing.experts()), routing.num_experts, ctx);
    const auto ints = [](const Tensor& x) {
      const Numbers values = ToDoubles(x);
      return std::vector<int>(values.begin(), values.end());
    };
    const std::vector<int> row = ints(plan.row), expert = ints(plan.expert);
    const std::vector<int> offsets = ints(plan.expert_offsets);
    std::vector<int> pair_at(plan.num_pairs(), -1);
    for (int p = 0; p < plan.num_pairs(); ++p) pair_at[row[p]] = p;
    for (int e = 0; e < routing.num_experts; ++e) {
      for (int r = offsets[e]; r < offsets[e + 1]; ++r) {
        ASSERT_GE(pair_at[r], 0) << "no pair stands at row " << r;
        EXPECT_EQ(expert[pair_at[r]], e);
        EXPECT_TRUE(r == offsets[e] || pair_at[r - 1] < pair_at[r]) << "row " << r;
      }
    }
    EXPECT_EQ(offsets.back(), plan.num_pairs());
  }
}

// Each token has `per_token` pairs, in the order of experts.
void ExpectPlanOf(const Numbers& experts, int64_t per_token, int64_t num_experts) {
  test::DeviceContext ctx;
  const int64_t P = std::ssize(experts);
  Numbers token_offsets;
  for (int64_t p = 0; p <= P; p += per_token) token_offsets.push_back(static_cast<double>(p));
  const RoutingPlan plan =
      BuildPlan(Int32(ctx, token_offsets), Int32(ctx, experts), num_experts, ctx);

  std::vector<int64_t> pair_at(P);
  std::iota(pair_at.begin(), pair_at.end(), 0);
  std::ranges::stable_sort(pair_at, {}, [&](int64_t p) { return experts[p]; });
  Numbers row(P), row_tokens(P), expert_offsets(num_experts + 1);
  for (int64_t r = 0; r < P; ++r) {
    row[pair_at[r]] = static_cast<double>(r);
    row_tokens[r] = static_cast<double>(pair_at[r] / per_token);
  }
  for (const double e : experts) ++expert_offsets[static_cast<size_t>(e) + 1];
  std::partial_sum(expert_offsets.begin(), expert_offsets.end(), expert_offsets.begin());
  EXPECT_EQ(ToDoubles(plan.row), row);
  EXPECT_EQ(ToDoubles(plan.expert_offsets), expert_offsets);
  EXPECT_EQ(ToDoubles(RowTokens(plan, ctx)), row_tokens);
}

// More pairs and experts than a block of a device takes at once.
TEST(RoutingPlan, ManyPairsOfManyExperts) {
  Numbers experts(5200);
  // The four of a token differ: by less than 4 * 43 < 1024.
  for (size_t p = 0; p < experts.size(); ++p)
    experts[p] = static_cast<double>(p * (p / 1000 + 37) % 1024);
  ExpectPlanOf(experts, 4, 1024);
}

TEST(RoutingPlan, ManyPairsOfOneExpert) { ExpectPlanOf(Numbers(5000, 2), 1, 4); }

class TopKTest : public testing::TestWithParam<DType> {
 protected:
  Tensor Scores(int64_t T, int64_t E, const Numbers& values) {
    return FromValues(ctx_, GetParam(), {T, E}, values);
  }

  test::DeviceContext device_{{.num_threads = 2}};
  Context& ctx_ = device_.of(GetParam());
  Context& host_ = device_.host();
};

TEST_P(TopKTest, BestFirstAndTiesToTheLowerExpert) {
  const Tensor scores = Scores(3, 4, {1, 2, 2, 0, 5, 5, 5, 5, -1, -3, -2, -1});
  const RoutingPlan plan = TopK({.scores = scores, .k = 2}, ctx_);
  EXPECT_EQ(ToDoubles(plan.expert), (Numbers{1, 2, 0, 1, 0, 3}));
  EXPECT_EQ(ToDoubles(plan.token_offsets), (Numbers{0, 2, 4, 6}));
}

TEST_P(TopKTest, BiasChoosesAndPaddingGetsNoExpert) {
  const Tensor scores = Scores(3, 2, {1, 2, 1, 2, 1, 3});
  const Tensor bias = FromValues(ctx_, GetParam(), {2}, {1.5, 0});
  const Tensor ids = Int32(ctx_, {0, -1, 7});
  const TopKArgs args = {.scores = scores, .bias = bias, .k = 1, .document_ids = ids};
  const RoutingPlan plan = TopK(args, ctx_);
  EXPECT_EQ(ToDoubles(plan.token_offsets), (Numbers{0, 1, 1, 2}));
  EXPECT_EQ(ToDoubles(plan.expert), (Numbers{0, 1}));
  EXPECT_EQ(ToDoubles(TopKMargin(args, ctx_)), (Numbers{0.5}));
}

TEST_P(TopKTest, ManyTokensOfWhichSomeArePadding) {
  constexpr int64_t T = 9000;
  Numbers scores, ids, expert, token_offsets = {0};
  for (int64_t t = 0; t < T; ++t) {
    const bool is_padding = t % 5 == 2 || (t > 4000 && t < 5000);
    ids.push_back(is_padding ? -1 : 1);
    scores.insert(scores.end(), {t % 3 == 0 ? 1.0 : 0.0, 0.5});
    if (!is_padding) expert.push_back(t % 3 == 0 ? 0 : 1);
    token_offsets.push_back(static_cast<double>(expert.size()));
  }
  for (const int64_t num_routed : {int64_t{-1}, std::ssize(expert)}) {
    const RoutingPlan plan = TopK({.scores = Scores(T, 2, scores),
                                   .k = 1,
                                   .document_ids = Int32(ctx_, ids),
                                   .num_routed = num_routed},
                                  ctx_);
    EXPECT_EQ(ToDoubles(plan.token_offsets), token_offsets);
    EXPECT_EQ(ToDoubles(plan.expert), expert);
  }
}

TEST_P(TopKTest, NaNIsTheWorstScoreAndZerosAreOne) {
  const Tensor scores =
      Scores(4, 3, {NAN, 1, NAN, NAN, NAN, NAN, -INFINITY, NAN, INFINITY, -0.0, 0, -1});
  const RoutingPlan plan = TopK({.scores = scores, .k = 2}, ctx_);
  EXPECT_EQ(ToDoubles(plan.expert), (Numbers{1, 0, 0, 1, 2, 0, 0, 1}));
}

TEST_P(TopKTest, AgreesWithTheReferenceOnTies) {
  for (const int k : {1, 3, 8}) {
    const TopKArgs args = {.scores = Scores(50, 8, test::TiedScores(50, 8)), .k = k};
    const RoutingPlan plan = TopK(args, ctx_);
    const RoutingPlan exact = TopK({.scores = device_.Exact(args.scores), .k = k}, host_);
    EXPECT_EQ(ToDoubles(plan.expert), ToDoubles(exact.expert));
    EXPECT_EQ(ToDoubles(plan.row), ToDoubles(exact.row));
    EXPECT_EQ(ToDoubles(TopKMargin(args, ctx_)), (Numbers{k == 8 ? INFINITY : 0}));
  }
}

TEST_P(TopKTest, AgreesWithTheReferenceOnManyExperts) {
  for (const int k : {1, 6, 70}) {
    const Tensor scores =
        Scores(20, 70, ToDoubles(test::RandomTensor(ctx_, DType::kF32, {20, 70}, "s")));
    const Tensor bias = Scores(1, 70, test::TiedScores(1, 70)).Reshape({70});
    const RoutingPlan plan = TopK({.scores = scores, .bias = bias, .k = k}, ctx_);
    const RoutingPlan exact =
        TopK({.scores = device_.Exact(scores), .bias = device_.Exact(bias), .k = k}, host_);
    EXPECT_EQ(ToDoubles(plan.expert), ToDoubles(exact.expert));
  }
}

TEST_P(TopKTest, NoTokens) {
  const TopKArgs args = {.scores = Scores(0, 4, {}), .k = 2};
  const RoutingPlan plan = TopK(args, ctx_);
  EXPECT_EQ(plan.num_tokens(), 0);
  EXPECT_EQ(plan.num_pairs(), 0);
  EXPECT_EQ(ToDoubles(plan.expert_offsets), (Numbers{0, 0, 0, 0, 0}));
  EXPECT_EQ(ToDoubles(TopKMargin(args, ctx_)), (Numbers{INFINITY}));
}

INSTANTIATE_TEST_SUITE_P(DTypes, TopKTest, testing::Values(DType::kF32, DType::kF64),
                         [](const auto& info) { return NameOf(info.param); });

TEST(RoutingPlan, MetaPlansForTheMostThereCanBe) {
  test::DeviceContext ctx({.device = kMeta});
  const RoutingPlan plan = TopK({.scores = ctx.Empty(DType::kF32, {5, 8}, "s"), .k = 2}, ctx);
  EXPECT_EQ(plan.num_pairs(), 10);
  EXPECT_EQ(plan.num_experts(), 8);
}

}  // namespace
}  // namespace moebius::kernels
