#include "kernels/expert_counts.h"

#include <gtest/gtest.h>

#include "tests/testing/adversarial_routing.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"

namespace moebius::kernels {
namespace {

using Numbers = std::vector<double>;

RoutingPlan Plan(Context& ctx, const test::RoutingCase& routing) {
  const auto int32 = [&](const Numbers& values) {
    return test::FromValues(ctx, DType::kI32, {static_cast<int64_t>(values.size())}, values);
  };
  return BuildPlan(int32(routing.token_offsets()), int32(routing.experts()), routing.num_experts,
                   ctx);
}

TEST(ExpertCounts, CountsByGroupAndAddsUp) {
  test::DeviceContext ctx;
  const test::RoutingCase routing = {"", 3, {{0, 2}, {2}, {}, {1, 0, 2}}};
  const Tensor counts = test::FromValues(ctx, DType::kF64, {2, 3}, {9, 9, 9, 9, 9, 9});
  for (const bool accumulate : {false, true})
    ExpertCounts({Plan(ctx, routing), 2, counts, accumulate}, ctx);
  EXPECT_EQ(test::ToDoubles(counts), (Numbers{2, 0, 4, 2, 2, 2}));
}

TEST(ExpertCounts, AreTheDifferencesOfExpertOffsets) {
  test::DeviceContext ctx;
  for (const auto& routing : test::AdversarialRoutings(23, 6)) {
    SCOPED_TRACE(routing.name);
    const RoutingPlan plan = Plan(ctx, routing);
    const Tensor counts = ctx.Empty(DType::kF64, {1, 6}, "counts");
    ExpertCounts({plan, 23, counts, false}, ctx);
    const Numbers offsets = test::ToDoubles(plan.expert_offsets), found = test::ToDoubles(counts);
    for (int e = 0; e < 6; ++e) EXPECT_EQ(found[e], offsets[e + 1] - offsets[e]);
  }
}

TEST(ExpertCounts, FractionsAddUpToOneAndAreEvenWhereNothingCame) {
  test::DeviceContext on_device;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Context& ctx = on_device.of(dtype);
    const Tensor counts = test::FromValues(ctx, DType::kF64, {2, 4}, {1, 0, 2, 5, 0, 0, 0, 0});
    const Tensor fractions = ctx.Empty(dtype, {2, 4}, "fractions");
    ExpertFractions(counts, fractions, ctx);
    EXPECT_EQ(test::ToDoubles(fractions), (Numbers{0.125, 0, 0.25, 0.625, 0.25, 0.25, 0.25, 0.25}));
  }
}

TEST(ExpertCounts, TheBiasFollowsThem) {
  test::DeviceContext on_device;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Context& ctx = on_device.of(dtype);
    const auto doubles = [&](const Numbers& values) {
      return test::FromValues(ctx, DType::kF64, {std::ssize(values)}, values);
    };
    const Tensor last = doubles({9, 9, 9, 9}), counts = doubles({1, 0, 2, 5});
    const Tensor bias = test::FromValues(ctx, dtype, {4}, {0, 1, 2, 3});
    FollowCountsArgs args = {.counts = counts,
                             .state = doubles({1, 0.1, 1, /*updates=*/0, 0, 0}),
                             .last_counts = last,
                             .bias = bias,
                             .rate = 0.5};
    FollowCounts(args, ctx);
    EXPECT_EQ(test::ToDoubles(last), (Numbers{9, 9, 9, 9}));
    EXPECT_EQ(test::ToDoubles(bias), (Numbers{0, 1, 2, 3}));
    args.state = doubles({1, 0.1, 1, /*updates=*/1, 0, 0});
    FollowCounts(args, ctx);
    EXPECT_EQ(test::ToDoubles(last), (Numbers{1, 0, 2, 5}));
    EXPECT_EQ(test::ToDoubles(bias), (Numbers{0.5, 1.5, 2, 2.5}));
    args.counts = doubles({2, 0, 0, 0}), args.bias = Tensor();
    FollowCounts(args, ctx);
    EXPECT_EQ(test::ToDoubles(last), (Numbers{2, 0, 0, 0}));
  }
}

}  // namespace
}  // namespace moebius::kernels
