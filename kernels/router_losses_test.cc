#include "kernels/router_losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::FromValues;

class RouterLossesTest : public testing::Test {
 protected:
  Tensor Exact(const Tensor& x) { return ctx_.Exact(x); }
  Tensor Positive(const Shape& shape, const char* name) {
    std::vector<double> x = test::ToDoubles(test::RandomTensor(ctx_, DType::kF32, shape, name));
    for (double& element : x) element = std::abs(element);
    return test::FromValues(ctx_, DType::kF32, shape, x);
  }
  // Every third token is padding.
  Tensor Mask(int64_t T) {
    std::vector<double> ids(T);
    for (int64_t t = 0; t < T; ++t) ids[t] = t % 3 == 1 ? -1.0 : static_cast<double>(t);
    return FromValues(ctx_, DType::kI32, {T}, ids);
  }

  test::DeviceContext ctx_{{.num_threads = 2}};
  Context& host_ = ctx_.host();
};

// Of tokens and experts: none, few, and more than a device takes at once.
constexpr std::pair<int64_t, int64_t> kSizes[] = {{0, 9}, {1, 9}, {150, 9}, {5000, 3}, {50, 70}};

TEST_F(RouterLossesTest, BalanceAgreesWithTheReference) {
  for (const auto& [T, E] : kSizes) {
    for (const bool normalize : {false, true}) {
      const Tensor scores = Positive({T, E}, "scores");
      const Tensor fractions = Positive({4, E}, "fractions");
      const BalanceLossOptions options = {.fractions = fractions,
                                          .document_ids = normalize ? Mask(T) : Tensor(),
                                          .tokens_per_group = T / 4 + 3,
                                          .normalize_scores = normalize,
                                          .divisor = 300};
      BalanceLossOptions exact = options;
      exact.fractions = Exact(fractions), exact.document_ids = Exact(options.document_ids);
      ExpectClose(test::Convert(ctx_, BalanceLoss(scores, options, ctx_), DType::kF32),
                  BalanceLoss(Exact(scores), exact, host_), E);

      const Tensor ds = Positive({T, E}, "ds"), exact_ds = Exact(ds);
      BalanceLossGradient(scores, options, {0.5, ds, normalize}, ctx_);
      BalanceLossGradient(Exact(scores), exact, {0.5, exact_ds, normalize}, host_);
      ExpectClose(ds, exact_ds, E);
    }
  }
}

TEST_F(RouterLossesTest, ZLossAgreesWithTheReference) {
  for (const auto& [T, E] : kSizes) {
    const Tensor logits = test::RandomTensor(ctx_, DType::kF32, {T, E}, "logits", 3);
    const ZLossOptions options = {.document_ids = Mask(T), .divisor = 300};
    const ZLossOptions exact = {.document_ids = Exact(options.document_ids), .divisor = 300};
    ExpectClose(test::Convert(ctx_, ZLoss(logits, options, ctx_), DType::kF32),
                ZLoss(Exact(logits), exact, host_), E);
    for (const bool accumulate : {false, true}) {
      const Tensor dz = Positive({T, E}, "dz"), exact_dz = Exact(dz);
      ZLossGradient(logits, options, {0.5, dz, accumulate}, ctx_);
      ZLossGradient(Exact(logits), exact, {0.5, exact_dz, accumulate}, host_);
      ExpectClose(dz, exact_dz, E);
    }
  }
}

// Two domains of tokens that use disjoint halves of the experts evenly: each micro-batch alone is
// unbalanced (2), the global batch is balanced (1) and exerts no force on softmax routers.
TEST_F(RouterLossesTest, GlobalFractionsLeaveABalancedBatchAlone) {
  const Tensor p = FromValues(host_, DType::kF64, {2, 4}, {0.5, 0.5, 0, 0, 0, 0, 0.5, 0.5});
  const Tensor local = FromValues(host_, DType::kF64, {2, 4}, {0.5, 0.5, 0, 0, 0, 0, 0.5, 0.5});
  const Tensor global = FromValues(host_, DType::kF64, {1, 4}, {0.25, 0.25, 0.25, 0.25});
  const auto value = [&](const Tensor& fractions, int64_t tokens_per_group) {
    return BalanceLoss(p,
                       {.fractions = fractions, .tokens_per_group = tokens_per_group, .divisor = 2},
                       host_)
        .data<double>()[0];
  };
  EXPECT_DOUBLE_EQ(value(local, 1), 2);
  EXPECT_DOUBLE_EQ(value(global, 2), 1);

  const Tensor dp = host_.Empty(DType::kF64, {2, 4}, "dp");
  BalanceLossGradient(p, {.fractions = global, .tokens_per_group = 2, .divisor = 2},
                      {.coefficient = 1, .dx = dp, .accumulate = false}, host_);
  for (const double element : dp.span<double>()) EXPECT_DOUBLE_EQ(element, 0.5);
}

TEST_F(RouterLossesTest, ZLossOfEqualLogits) {
  const Tensor logits = FromValues(host_, DType::kF64, {1, 2}, {3, 3});
  const double log_sum = 3 + std::log(2.0);
  EXPECT_DOUBLE_EQ(ZLoss(logits, {.divisor = 4}, host_).data<double>()[0], log_sum * log_sum / 4);
}

}  // namespace
}  // namespace moebius::kernels
