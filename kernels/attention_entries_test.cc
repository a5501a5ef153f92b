// Attention through its entries, on any device (tests/testing/device_context.h).
#include <gtest/gtest.h>

#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "tests/testing/attention_cases.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::AttentionCase;
using test::Normal;
using test::Values;

// Beside the same entries in F64.
class AttentionEntriesTest : public testing::TestWithParam<AttentionCase> {
 protected:
  // A device may round weights and gradients of scores to BF16 before it multiplies them.
  static void ExpectClose(const Tensor& actual, const Tensor& expected, int64_t reduction_length,
                          const Tensor& magnitudes) {
    if (actual.dtype() == DType::kBF16) {
      test::ExpectCloseOfRounded(actual, expected, reduction_length, magnitudes);
    } else {
      test::ExpectClose(actual, expected, reduction_length);
    }
  }

  void Check(const AttentionCase& c, DType dtype, bool accumulate_q, bool accumulate_k,
             bool accumulate_v) {
    const auto& shape = c.shape;
    const auto& [B, S, H, G, C, queries] = shape;
    const int64_t Q = shape.queries_per_sequence(), length = S * H / G;
    const Shape q_shape = {B * Q, H * C}, k_shape = {B * S, G * C}, sum_shape = {B * Q, H};
    const Tensor ids = c.DocumentIds(context_), exact_ids = context_.Exact(ids);
    Context& host = context_.host();
    const auto normal = [&](const Shape& shape, const char* name) {
      return Normal(context_, dtype, shape, name);
    };
    const Values q = normal(q_shape, "q"), k = normal(k_shape, "k"), v = normal(k_shape, "v");
    const Values y = normal(q_shape, "y"), dy = normal(q_shape, "dy");
    const Values sums = Normal(context_, DType::kF32, sum_shape, "logsumexp");
    const Values dq = normal(q_shape, "dq"), dk = normal(k_shape, "dk"), dv = normal(k_shape, "dv");
    Attention({shape, q.exact, k.exact, v.exact, exact_ids, y.exact, sums.exact}, host);
    Attention({shape, q.tensor, k.tensor, v.tensor, ids, y.tensor, sums.tensor}, context_);
    AttentionGradient({shape, q.tensor, k.tensor, v.tensor, ids, y.tensor, sums.tensor, dy.tensor,
                       dq.tensor, dk.tensor, dv.tensor, accumulate_q, accumulate_k, accumulate_v},
                      context_);
    // The gradient of the output as it was written: in BF16 its rounding matters.
    const Tensor written = context_.Exact(y.tensor);
    const AttentionGradientArgs exact = {
        shape,    q.exact,  k.exact,  v.exact,  exact_ids,    written,      sums.exact,
        dy.exact, dq.exact, dk.exact, dv.exact, accumulate_q, accumulate_k, accumulate_v};
    AttentionGradient(exact, host);
    const test::AttentionMagnitudes magnitudes = test::MagnitudesOf(exact, host);
    test::ExpectClose(sums.tensor, sums.exact, C);
    ExpectClose(y.tensor, y.exact, S, magnitudes.y);
    ExpectClose(dq.tensor, dq.exact, S, magnitudes.dq);
    ExpectClose(dk.tensor, dk.exact, length, magnitudes.dk);
    ExpectClose(dv.tensor, dv.exact, length, magnitudes.dv);
  }

  test::DeviceContext context_{{.num_threads = 2}};
};

TEST_P(AttentionEntriesTest, AgreeWithDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(NameOf(dtype));
    Check(GetParam(), dtype, false, false, false);
    Check(GetParam(), dtype, true, true, true);
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionEntriesTest, testing::ValuesIn(test::AttentionCases()));

TEST_F(AttentionEntriesTest, AccumulateIntoEachGradientAlone) {
  const AttentionCase c = {{1, 70, 2, 1, 70}, 20};
  Check(c, DType::kF32, true, false, false);
  Check(c, DType::kF32, false, true, false);
  Check(c, DType::kF32, false, false, true);
}

TEST_F(AttentionEntriesTest, GiveTheSameBitsAgain) {
  const AttentionShape shape = {2, 70, 4, 2, 24};
  const Tensor ids = test::DocumentIds(context_, shape, 20);
  const Tensor q = Normal(context_, DType::kF32, {140, 96}, "q").tensor;
  const Tensor k = Normal(context_, DType::kF32, {140, 48}, "k").tensor;
  const auto run = [&] {
    const auto empty = [&](int64_t width) {
      return Normal(context_, DType::kF32, {140, width}, "results").tensor;
    };
    const std::vector<Tensor> results = {empty(96), empty(4), empty(96), empty(48), empty(48)};
    Attention({shape, q, k, k, ids, results[0], results[1]}, context_);
    AttentionGradient(
        {shape, q, k, k, ids, results[0], results[1], q, results[2], results[3], results[4]},
        context_);
    return results;
  };
  const std::vector<Tensor> first = run(), again = run();
  for (size_t i = 0; i < first.size(); ++i) test::ExpectSameBits(first[i], again[i]);
}

TEST(Attention, LargeScoresDoNotOverflow) {
  test::DeviceContext context;
  const AttentionShape shape = {1, 64, 1, 1, 32};
  const Values q = Normal(context, DType::kF32, {64, 32}, "q"),
               v = Normal(context, DType::kF32, {64, 32}, "v");
  Scale(q.tensor, 100, context);
  Scale(q.exact, 100, context.host());
  const Values y = Normal(context, DType::kF32, {64, 32}, "y"),
               sums = Normal(context, DType::kF32, {64, 1}, "s");
  Attention({.shape = shape,
             .q = q.tensor,
             .k = q.tensor,
             .v = v.tensor,
             .y = y.tensor,
             .logsumexp = sums.tensor},
            context);
  Attention({.shape = shape,
             .q = q.exact,
             .k = q.exact,
             .v = v.exact,
             .y = y.exact,
             .logsumexp = sums.exact},
            context.host());
  // Scores of thousands are off by 1e-3 in F32.
  const std::vector<double> actual = test::ToDoubles(y.tensor), exact = test::ToDoubles(y.exact);
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(actual[i], exact[i], 0.1);
}

}  // namespace
}  // namespace moebius::kernels
