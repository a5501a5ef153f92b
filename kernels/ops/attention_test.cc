#include "kernels/ops/attention.h"

#include <gtest/gtest.h>

#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius::ops {
namespace {

using test::RandomTensor;

void CheckAttention(Context& ctx, const AttentionShape& shape, const Tensor& document_ids) {
  const int64_t num_queries = shape.num_sequences * shape.queries_per_sequence();
  const auto fn = [&](Tape& tape, const std::vector<Var>& in) {
    return test::Outputs{.values = {Attention(tape, in[0], in[1], in[2], shape, document_ids)}};
  };
  const Shape q_shape = {num_queries, shape.num_heads * shape.head_dim};
  const Shape kv_shape = {shape.num_sequences * shape.sequence_length,
                          shape.num_kv_heads * shape.head_dim};
  test::CheckGradients(
      ctx, fn,
      {RandomTensor(ctx, DType::kF64, q_shape, "q"), RandomTensor(ctx, DType::kF64, kv_shape, "k"),
       RandomTensor(ctx, DType::kF64, kv_shape, "v")});
}

TEST(Attention, Gradients) {
  Context ctx;
  CheckAttention(ctx, {2, 5, 4, 2, 3}, Tensor());
  CheckAttention(ctx, {1, 1, 1, 1, 2}, Tensor());
  CheckAttention(ctx, {0, 4, 2, 1, 2}, Tensor());
}

TEST(Attention, GradientsWithinDocumentsAndPadding) {
  Context ctx;
  const Tensor ids = test::FromValues(ctx, DType::kI32, {12},
                                      {0, 0, 1, 1, 1, -1,  //
                                       -1, 4, 5, 5, 5, 5});
  CheckAttention(ctx, {2, 6, 2, 1, 2}, ids);
}

TEST(Attention, GradientsOfChunksOfQueries) {
  Context ctx;
  CheckAttention(ctx, {2, 8, 4, 2, 3, {2, 2, {2, 4}}}, Tensor());
  CheckAttention(ctx, {1, 6, 2, 2, 2, {1, 2, {3}}}, Tensor());
  CheckAttention(ctx, {1, 6, 2, 1, 2, {1, 0, {3}}}, Tensor());  // keys that no query sees
  CheckAttention(ctx, {0, 8, 2, 1, 2, {2, 2, {0, 6}}}, Tensor());
}

TEST(Attention, GradientsOfChunksWithinDocumentsAndPadding) {
  Context ctx;
  const Tensor ids = test::FromValues(ctx, DType::kI32, {16},
                                      {0, 0, 1, 1, 1, 1, -1, -1,  //
                                       -1, 4, 5, 5, 5, 6, 6, 6});
  CheckAttention(ctx, {2, 8, 4, 2, 2, {2, 2, {0, 6}}}, ids);
  CheckAttention(ctx, {2, 8, 4, 2, 2, {2, 2, {2, 4}}}, ids);
}

TEST(Attention, MetaRunsShapes) {
  Context ctx({.device = kMeta});
  test::ValueWeights weights;
  Tape tape(ctx, weights);
  const auto input = [&](const Shape& shape) {
    return tape.Input(ctx.Empty(DType::kBF16, shape, "test"));
  };
  const Var q = input({2 * 4, 6}), k = input({2 * 8, 3}), v = input({2 * 8, 3});
  const AttentionShape shape = {2, 8, 2, 1, 3, {2, 2, {2, 4}}};
  const Var y = Attention(tape, q, k, v, shape, ctx.Empty(DType::kI32, {2 * 8}, "test"));
  EXPECT_EQ(y.shape(), q.shape());
  const Tape::Seed seed = {y.id(), ctx.Empty(DType::kBF16, y.shape(), "test")};
  tape.Backward({&seed, 1});
  EXPECT_EQ(tape.LeafGradient(q.id()).shape(), q.shape());
  EXPECT_EQ(tape.LeafGradient(k.id()).shape(), k.shape());
  EXPECT_EQ(tape.LeafGradient(v.id()).shape(), v.shape());
}

}  // namespace
}  // namespace moebius::ops
