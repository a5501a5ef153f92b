#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd_amx_software.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::ExpectCloseOfRounded;
using test::RandomTensor;

struct Values {
  Tensor tensor, exact;  // the same values, in F64 too
};

Values Normal(Context& context, DType dtype, const Shape& shape, const char* name) {
  const Tensor x = RandomTensor(context, dtype, shape, name);
  return {x, test::Convert(context, x, DType::kF64)};
}

Tensor DocumentIds(Context& context, const AttentionShape& shape, int mean_length) {
  const int64_t S = shape.sequence_length;
  const Tensor ids = context.Empty(DType::kI32, {shape.num_sequences * S}, "ids");
  const RandomStream stream(3, "documents");
  int32_t id = 0;
  for (int64_t t = 0; t < ids.size(); ++t) {
    if (t % S == 0 || stream.Below(static_cast<uint64_t>(t), mean_length) == 0) ++id;
    const bool padding = t % S >= S - S / 7 || (t / S == 1 && t % S < 3);
    ids.data<int32_t>()[t] = padding ? -1 : id;
  }
  return ids;
}

// Sums of the magnitudes of the products that make up each result, in F64.
struct Magnitudes {
  Tensor y, dq, dk, dv;
};

// `args` in F64, of which the results of the forward pass are read.
Magnitudes MagnitudesOf(const AttentionGradientArgs& args, Context& context) {
  const auto& [B, S, H, G, C, queries] = args.shape;
  const QueryChunks chunks = args.shape.query_chunks();
  const auto zeros = [&](const Tensor& x) {
    return context.Zeros(DType::kF64, x.shape(), "magnitudes");
  };
  const Magnitudes sums = {zeros(args.q), zeros(args.q), zeros(args.k), zeros(args.k)};
  const double scale = 1 / std::sqrt(static_cast<double>(C));
  const auto id = [&](int64_t t) {
    return args.document_ids.defined() ? args.document_ids.data<int32_t>()[t] : 0;
  };
  for (int64_t i = 0; i < args.logsumexp.size(); ++i) {  // a query of one head
    const int64_t row = i / H, Q = args.shape.queries_per_sequence(), s = row % Q;
    const int64_t first = row / Q * S;
    const int64_t t = first + chunks.begin[s / chunks.length] + s % chunks.length;
    const int64_t at_q = i * C;
    for (int64_t j = first; j <= t && id(t) >= 0; ++j) {
      if (id(j) != id(t)) continue;
      const int64_t at_k = (j * G + i % H / (H / G)) * C;
      const auto dot = [&, C = C](const Tensor& x, const Tensor& y, int64_t at_y) {
        const double* x_row = x.data<double>() + at_q;
        return std::inner_product(x_row, x_row + C, y.data<double>() + at_y, 0.0);
      };
      const double p =
          std::exp(scale * dot(args.q, args.k, at_k) - args.logsumexp.data<double>()[i]);
      const double ds =
          scale * p * std::abs(dot(args.dy, args.v, at_k) - dot(args.dy, args.y, at_q));
      for (int64_t c = 0; c < C; ++c) {
        const auto add = [c](const Tensor& sum, int64_t at, double factor, const Tensor& x,
                             int64_t at_x) {
          sum.data<double>()[at + c] += factor * std::abs(x.data<double>()[at_x + c]);
        };
        add(sums.y, at_q, p, args.v, at_k);
        add(sums.dq, at_q, ds, args.k, at_k);
        add(sums.dk, at_k, ds, args.q, at_q);
        add(sums.dv, at_k, p, args.dy, at_q);
      }
    }
  }
  return sums;
}

struct Case {
  AttentionShape shape;
  int mean_document;  // 0: no documents
};

const Case kCases[] = {
    {{2, 1, 1, 1, 1}, 0},
    {{1, 5, 2, 1, 3}, 0},
    {{2, 70, 4, 2, 24}, 0},
    {{1, 200, 3, 3, 64}, 0},
    {{1, 530, 2, 1, 20}, 0},
    {{1, 33, 2, 1, 256}, 0},
    {{3, 90, 4, 2, 16}, 20},
    {{2, 400, 2, 1, 8}, 100},
    {{2, 300, 1, 1, 33}, 2},
    {{2, 64, 2, 2, 32}, 1000},
    {{0, 16, 2, 1, 8}, 0},
    {{1, 301, 4, 2, 40}, 50},
    {{1, 1031, 4, 1, 8}, 1000},  // a head whose queries are cut into parts
    // Chunks of queries: in one run, apart, side by side, none.
    {{2, 12, 2, 1, 8, {1, 4, {8}}}, 0},
    {{2, 400, 2, 1, 8, {2, 50, {50, 300}}}, 100},
    {{1, 530, 2, 2, 20, {2, 37, {0, 491}}}, 0},
    {{2, 96, 4, 2, 33, {2, 24, {24, 48}}}, 9},
    {{2, 30, 2, 1, 8, {1, 0, {30}}}, 0},
    {{0, 16, 2, 1, 8, {2, 4, {4, 8}}}, 0},
};

void PrintTo(const Case& c, std::ostream* out) {
  const auto& [B, S, H, G, C, queries] = c.shape;
  *out << "B" << B << " S" << S << " H" << H << " G" << G << " C" << C << " documents of "
       << c.mean_document;
  for (int i = 0; i < queries.num_chunks; ++i) {
    *out << " queries " << queries.begin[i] << " + " << queries.length;
  }
}

class AttentionTest : public testing::TestWithParam<Case> {
 protected:
  void Check(const Case& c, DType dtype, bool accumulate) {
    const auto& shape = c.shape;
    const auto& [B, S, H, G, C, queries] = shape;
    const int64_t Q = shape.queries_per_sequence();
    const Shape q_shape = {B * Q, H * C}, k_shape = {B * S, G * C}, sum_shape = {B * Q, H};
    const Tensor ids =
        c.mean_document > 0 ? DocumentIds(context_, shape, c.mean_document) : Tensor();
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
        const Magnitudes magnitudes = MagnitudesOf(exact, context_);
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

INSTANTIATE_TEST_SUITE_P(All, AttentionTest, testing::ValuesIn(kCases));

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
  const Tensor ids = DocumentIds(context, shape, 6);
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

TEST(Attention, LargeScoresDoNotOverflow) {
  Context context;
  const AttentionShape shape = {1, 64, 1, 1, 32};
  const Values q = Normal(context, DType::kF32, {64, 32}, "q"),
               v = Normal(context, DType::kF32, {64, 32}, "v");
  for (float& x : q.tensor.span<float>()) x *= 100;
  for (double& x : q.exact.span<double>()) x *= 100;
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
            context);
  // Scores of thousands are off by 1e-3 in F32.
  const std::vector<double> actual = test::ToDoubles(y.tensor), exact = test::ToDoubles(y.exact);
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(actual[i], exact[i], 0.1);
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
