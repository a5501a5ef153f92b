#include "kernels/ops/attention.h"

#include <gtest/gtest.h>

#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius::ops {
namespace {

using test::RandomTensor;

void CheckAttention(Context& ctx, const AttentionShape& shape, const Tensor& document_ids) {
  const int64_t T = shape.num_sequences * shape.sequence_length;
  const auto fn = [&](Tape& tape, const std::vector<Var>& in) {
    return test::Outputs{.values = {Attention(tape, in[0], in[1], in[2], shape, document_ids)}};
  };
  const Shape kv_shape = {T, shape.num_kv_heads * shape.head_dim};
  test::CheckGradients(ctx, fn,
                       {RandomTensor(ctx, DType::kF64, {T, shape.num_heads * shape.head_dim}, "q"),
                        RandomTensor(ctx, DType::kF64, kv_shape, "k"),
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

}  // namespace
}  // namespace moebius::ops
