// Attention by every instruction set of this processor.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd_amx_software.h"
#include "tests/testing/attention_cases.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::AttentionCase;
using test::AttentionMagnitudes;
using test::ExpectClose;
using test::ExpectCloseOfRounded;
using test::Normal;
using test::RandomTensor;
using test::Values;

class AttentionTest : public testing::TestWithParam<AttentionCase> {
 protected:
  void Check(const AttentionCase& c, DType dtype, bool accumulate) {
    const auto& shape = c.shape;
    const auto& [B, S, H, G, C, queries] = shape;
    const int64_t Q = shape.queries_per_sequence();
    const Shape q_shape = {B * Q, H * C}, k_shape = {B * S, G * C}, sum_shape = {B * Q, H};
    const Tensor ids = c.DocumentIds(context_);
    const auto normal = [&](const Shape& shape, const char* name) {
      return Normal(context_, dtype, shape, name);
    };
    const Values q = normal(q_shape, "q"), dy = normal(q_shape, "dy");
    const Values k = normal(k_shape, "k"), v = normal(k_shape, "v");
    const Tensor y_exact = context_.Empty(DType::kF64, q_shape, "y");
    const Tensor sums_exact = context_.Empty(DType::kF64, sum_shape, "logsumexp");
    Attention({shape, q.exact, k.exact, v.exact, ids, y_exact, sums_exact}, context_);

    const cpu::SimdKernels software_amx = cpu::SoftwareAmxKernels();
    std::vector<const cpu::SimdKernels*> all = cpu::SupportedSimd();
    all.push_back(&software_amx);
    for (const cpu::SimdKernels* simd : all) {
      SCOPED_TRACE(simd->name);
      const Tensor y = context_.Empty(dtype, q_shape, "y");
      const Tensor sums = context_.Empty(DType::kF32, sum_shape, "logsumexp");
      cpu::Attention({shape, q.tensor, k.tensor, v.tensor, ids, y, sums}, context_, *simd);

      const Values dq = normal(q_shape, "dq"), dk = normal(k_shape, "dk"),
                   dv = normal(k_shape, "dv");
      // The gradient of the output as it was written: in BF16 its rounding matters.
      const Tensor written = test::Convert(context_, y, DType::kF64);
      const AttentionGradientArgs exact = {shape,    q.exact,    k.exact,    v.exact,   ids,
                                           written,  sums_exact, dy.exact,   dq.exact,  dk.exact,
                                           dv.exact, accumulate, accumulate, accumulate};
      AttentionGradient(exact, context_);
      cpu::AttentionGradient({shape, q.tensor, k.tensor, v.tensor, ids, y, sums, dy.tensor,
                              dq.tensor, dk.tensor, dv.tensor, accumulate, accumulate, accumulate},
                             context_, *simd);
      ExpectClose(sums, sums_exact, C);
      if (dtype == DType::kBF16 && simd->product_bf16 != nullptr) {
        // Weights and gradients of scores are rounded before they are multiplied.
        const AttentionMagnitudes magnitudes = test::MagnitudesOf(exact, context_);
        ExpectCloseOfRounded(y, y_exact, S, magnitudes.y);
        ExpectCloseOfRounded(dq.tensor, dq.exact, S, magnitudes.dq);
        ExpectCloseOfRounded(dk.tensor, dk.exact, S * H / G, magnitudes.dk);
        ExpectCloseOfRounded(dv.tensor, dv.exact, S * H / G, magnitudes.dv);
      } else {
        ExpectClose(y, y_exact, S);
        ExpectClose(dq.tensor, dq.exact, S);
        ExpectClose(dk.tensor, dk.exact, S * H / G);
        ExpectClose(dv.tensor, dv.exact, S * H / G);
      }
    }
  }

  Context context_{{.num_threads = 2}};
};

TEST_P(AttentionTest, AgreesWithDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message() << NameOf(dtype) << " accumulate " << accumulate);
      Check(GetParam(), dtype, accumulate);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest, testing::ValuesIn(test::AttentionCases()));

// Equal keys give equal weights: the output is the mean of the values seen.
TEST(Attention, KnownAnswerOfTheReference) {
  Context context;
  const AttentionShape shape = {1, 4, 1, 1, 1};
  const Tensor q = context.Zeros(DType::kF64, {4, 1}, "q"),
               v = context.Zeros(DType::kF64, {4, 1}, "v");
  const Tensor ids = context.Empty(DType::kI32, {4}, "ids");
  for (int i = 0; i < 4; ++i) {
    v.data<double>()[i] = i + 1;
    ids.data<int32_t>()[i] = std::array{0, 1, 1, -1}[i];
  }
  const Tensor y = context.Empty(DType::kF64, {4, 1}, "y"),
               sums = context.Empty(DType::kF64, {4, 1}, "s");
  Attention({.shape = shape, .q = q, .k = q, .v = v, .y = y, .logsumexp = sums}, context);
  EXPECT_DOUBLE_EQ(y.data<double>()[3], 2.5);
  EXPECT_DOUBLE_EQ(sums.data<double>()[3], std::log(4));
  Attention(
      {.shape = shape, .q = q, .k = q, .v = v, .document_ids = ids, .y = y, .logsumexp = sums},
      context);
  EXPECT_DOUBLE_EQ(y.data<double>()[0], 1);
  EXPECT_DOUBLE_EQ(y.data<double>()[1], 2);
  EXPECT_DOUBLE_EQ(y.data<double>()[2], 2.5);
  EXPECT_DOUBLE_EQ(y.data<double>()[3], 0);
}

// Three ranks hold two chunks each: together they have the rows of one rank, and the gradients of
// keys and values are the sums of theirs.
TEST(Attention, ChunksOfQueriesGiveTheRowsOfAllQueries) {
  Context context;
  constexpr int64_t B = 2, S = 24, H = 4, G = 2, C = 3, kRanks = 3, kChunk = S / (2 * kRanks);
  const AttentionShape shape = {B, S, H, G, C};
  const Tensor ids = test::DocumentIds(context, shape, 6);
  const auto normal = [&](int64_t width, const char* name) {
    return RandomTensor(context, DType::kF64, {B * S, width}, name);
  };
  const auto empty = [&](int64_t rows, int64_t width) {
    return context.Empty(DType::kF64, {rows, width}, "test");
  };
  const Tensor q = normal(H * C, "q"), k = normal(G * C, "k"), v = normal(G * C, "v");
  const Tensor y = empty(B * S, H * C), sums = empty(B * S, H), dy = normal(H * C, "dy");
  const Tensor dq = empty(B * S, H * C), dk = empty(B * S, G * C), dv = empty(B * S, G * C);
  Attention({shape, q, k, v, ids, y, sums}, context);
  AttentionGradient({shape, q, k, v, ids, y, sums, dy, dq, dk, dv}, context);

  const Tensor dk_sum = context.Zeros(DType::kF64, dk.shape(), "test"),
               dv_sum = context.Zeros(DType::kF64, dv.shape(), "test");
  for (int64_t r = 0; r < kRanks; ++r) {
    AttentionShape part = shape;
    part.queries = {2, kChunk, {r * kChunk, (2 * kRanks - 1 - r) * kChunk}};
    const int64_t Q = part.queries_per_sequence();
    ASSERT_EQ(Q, 2 * kChunk);
    const auto rows_of = [&](const Tensor& all) {
      const int64_t width = all.shape()[1];
      const Tensor rows = empty(B * Q, width);
      for (int64_t i = 0; i < B * Q; ++i) {
        const int64_t position = part.queries.begin[i % Q / kChunk] + i % kChunk;
        std::copy_n(all.data<double>() + (i / Q * S + position) * width, width,
                    rows.data<double>() + i * width);
      }
      return rows;
    };
    const Tensor y_part = empty(B * Q, H * C), sums_part = empty(B * Q, H),
                 dq_part = empty(B * Q, H * C), q_part = rows_of(q);
    Attention({part, q_part, k, v, ids, y_part, sums_part}, context);
    AttentionGradient({part, q_part, k, v, ids, y_part, sums_part, rows_of(dy), dq_part, dk_sum,
                       dv_sum, false, true, true},
                      context);
    test::ExpectSameBits(y_part, rows_of(y));
    test::ExpectSameBits(sums_part, rows_of(sums));
    test::ExpectSameBits(dq_part, rows_of(dq));
  }
  ExpectClose(dk_sum, dk, S * H / G);
  ExpectClose(dv_sum, dv, S * H / G);
}

TEST(Attention, BitsDoNotDependOnThreads) {
  const auto run = [](const AttentionShape& shape, DType dtype, int num_threads) {
    const auto& [B, S, H, G, C, queries] = shape;
    Context context({.num_threads = num_threads});
    const Shape q_shape = {B * S, H * C}, k_shape = {B * S, G * C};
    const Tensor q = RandomTensor(context, dtype, q_shape, "q"),
                 k = RandomTensor(context, dtype, k_shape, "k");
    const Tensor y = context.Empty(dtype, q_shape, "y"),
                 sums = context.Empty(DType::kF32, {B * S, H}, "s");
    const Tensor dq = context.Empty(dtype, q_shape, "dq"), dk = context.Empty(dtype, k_shape, "dk"),
                 dv = context.Empty(dtype, k_shape, "dv");
    Attention({.shape = shape, .q = q, .k = k, .v = k, .y = y, .logsumexp = sums}, context);
    AttentionGradient({.shape = shape,
                       .q = q,
                       .k = k,
                       .v = k,
                       .y = y,
                       .logsumexp = sums,
                       .dy = q,
                       .dq = dq,
                       .dk = dk,
                       .dv = dv},
                      context);
    std::string bits;
    for (const Tensor& x : {y, sums, dq, dk, dv}) {
      bits.append(reinterpret_cast<const char*>(x.raw()), static_cast<size_t>(x.bytes()));
    }
    return bits;
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const AttentionShape& shape :
         {AttentionShape{3, 150, 4, 2, 24}, AttentionShape{1, 1031, 4, 1, 8}}) {
      const std::string one = run(shape, dtype, 1);
      EXPECT_TRUE(one == run(shape, dtype, 3)) << NameOf(dtype);
      EXPECT_TRUE(one == run(shape, dtype, 8)) << NameOf(dtype);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
