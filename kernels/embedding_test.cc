#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include "kernels/checks.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::RandomTensor;

class EmbeddingTest : public testing::TestWithParam<DType> {};

TEST_P(EmbeddingTest, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  const DType precise = PreciseDType(GetParam());
  // T, V, D: many repeated tokens; wide rows; one; few of many; none.
  const int64_t cases[][3] = {{500, 7, 33}, {60, 9, 300}, {1, 1, 1}, {20, 3000, 64}, {0, 5, 4}};
  for (const auto& [T, V, D] : cases) {
    Context& on = ctx.of(GetParam());
    const Tensor tokens = test::RandomInts(on, {T}, V, "tokens"), exact_tokens = ctx.Exact(tokens);
    const Tensor w = RandomTensor(on, precise, {V, D}, "w");
    const Tensor y = on.Empty(GetParam(), {T, D}, "y");
    const Tensor y_exact = ctx.host().Empty(DType::kF64, {T, D}, "y");
    Embedding({.tokens = tokens, .w = w, .y = y}, on);
    Embedding({.tokens = exact_tokens, .w = ctx.Exact(w), .y = y_exact}, ctx.host());
    test::ExpectClose(y, y_exact, 1);

    const Tensor dy = RandomTensor(on, GetParam(), {T, D}, "dy");
    for (const bool accumulate : {false, true}) {
      const Tensor dw = RandomTensor(on, precise, {V, D}, "dw"), dw_exact = ctx.Exact(dw);
      EmbeddingGradient({.tokens = tokens, .dy = dy, .dw = dw, .accumulate = accumulate}, on);
      EmbeddingGradient(
          {.tokens = exact_tokens, .dy = ctx.Exact(dy), .dw = dw_exact, .accumulate = accumulate},
          ctx.host());
      test::ExpectClose(dw, dw_exact, T);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, EmbeddingTest,
                         testing::Values(DType::kF64, DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

// The results of the parts of a table add up to the whole's; each part's gradient is its rows'.
TEST_P(EmbeddingTest, PartsOfATable) {
  test::DeviceContext on_device;
  Context& ctx = on_device.of(GetParam());
  constexpr int64_t T = 40, V = 7, D = 5;
  const DType precise = PreciseDType(GetParam());
  const Tensor tokens = test::RandomInts(ctx, {T}, V, "tokens");
  const Tensor w = RandomTensor(ctx, precise, {V, D}, "w");
  const Tensor dy = RandomTensor(ctx, GetParam(), {T, D}, "dy");
  const Tensor y = ctx.Empty(GetParam(), {T, D}, "y"), dw = ctx.Zeros(precise, {V, D}, "dw");
  Embedding({.tokens = tokens, .w = w, .y = y}, ctx);
  EmbeddingGradient({.tokens = tokens, .dy = dy, .dw = dw, .accumulate = false}, ctx);

  std::vector<double> sum(T * D);
  for (const auto& [first, end] : {std::pair<int64_t, int64_t>{0, 3}, {3, 3}, {3, 7}}) {
    const VocabularyRange range{first, V};
    const Tensor part = ctx.Empty(GetParam(), {T, D}, "y");
    Embedding({.tokens = tokens, .w = w.Slice(first, end), .range = range, .y = part}, ctx);
    const std::vector<double> values = test::ToDoubles(part);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
    const Tensor dw_part = RandomTensor(ctx, precise, {end - first, D}, "dw");
    EmbeddingGradient(
        {.tokens = tokens, .dy = dy, .range = range, .dw = dw_part, .accumulate = false}, ctx);
    test::ExpectSameBits(dw_part, dw.Slice(first, end));
  }
  EXPECT_EQ(sum, test::ToDoubles(y));
}

TEST(EmbeddingDeathTest, TokensLieInTheTable) {
  test::DeviceContext ctx;
  if (ctx.accelerator() != nullptr) GTEST_SKIP() << "tokens on a device are not read for a check";
  const Tensor w = ctx.Zeros(DType::kF32, {3, 2}, "w"), y = ctx.Zeros(DType::kF32, {1, 2}, "y");
  for (const double token : {-1.0, 3.0})
    EXPECT_DEATH(
        Embedding({.tokens = test::FromValues(ctx, DType::kI32, {1}, {token}), .w = w, .y = y},
                  ctx),
        "token");
}

}  // namespace
}  // namespace moebius::kernels
