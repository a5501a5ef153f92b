#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::RandomTensor;

class EmbeddingTest : public testing::TestWithParam<DType> {};

TEST_P(EmbeddingTest, AgreesWithTheReference) {
  Context ctx({.num_threads = 2});
  // T, V, D: many repeated tokens; one; few of many; none.
  const int64_t cases[][3] = {{500, 7, 33}, {1, 1, 1}, {20, 3000, 64}, {0, 5, 4}};
  for (const auto& [T, V, D] : cases) {
    const Tensor tokens = test::RandomInts(ctx, {T}, V, "tokens");
    const Tensor w = RandomTensor(ctx, DType::kF32, {V, D}, "w");
    const Tensor y = ctx.Empty(GetParam(), {T, D}, "y");
    const Tensor y_exact = ctx.Empty(DType::kF64, {T, D}, "y");
    Embedding(tokens, w, y, ctx);
    Embedding(tokens, Convert(ctx, w, DType::kF64), y_exact, ctx);
    test::ExpectClose(y, y_exact, 1);

    const Tensor dy = RandomTensor(ctx, GetParam(), {T, D}, "dy");
    for (const bool accumulate : {false, true}) {
      const Tensor dw = RandomTensor(ctx, DType::kF32, {V, D}, "dw");
      const Tensor dw_exact = Convert(ctx, dw, DType::kF64);
      EmbeddingGradient({.tokens = tokens, .dy = dy, .dw = dw, .accumulate = accumulate}, ctx);
      EmbeddingGradient({.tokens = tokens,
                         .dy = Convert(ctx, dy, DType::kF64),
                         .dw = dw_exact,
                         .accumulate = accumulate},
                        ctx);
      test::ExpectClose(dw, dw_exact, T);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, EmbeddingTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

TEST(EmbeddingDeathTest, TokensLieInTheTable) {
  Context ctx;
  const Tensor w = ctx.Zeros(DType::kF32, {3, 2}, "w"), y = ctx.Zeros(DType::kF32, {1, 2}, "y");
  for (const double token : {-1.0, 3.0})
    EXPECT_DEATH(Embedding(test::FromValues(ctx, DType::kI32, {1}, {token}), w, y, ctx), "token");
}

}  // namespace
}  // namespace moebius::kernels
