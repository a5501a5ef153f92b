#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "core/base/random.h"
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

// Rows that many tokens name, and batches that name none.
TEST_P(EmbeddingTest, GradientOfSkewedBatches) {
  test::DeviceContext on_device({.num_threads = 2});
  Context& ctx = on_device.of(GetParam());
  constexpr int64_t T = 3000, V = 1000, D = 5;
  const std::pair<const char*, std::function<int64_t(int64_t t, double random)>> batches[] = {
      {"one token", [](int64_t, double) { return 999; }},
      {"two tokens in turn", [](int64_t t, double) { return t % 2 == 0 ? 0 : 998; }},
      {"two tokens, one rare", [](int64_t t, double) { return t == 2500 ? 3 : 997; }},
      {"Zipf", [](int64_t, double random) { return std::lround(std::pow(V, random)) - 1; }},
      {"each thrice", [](int64_t t, double) { return t % V; }},
      {"behind the table", [](int64_t, double) { return V + 7; }},
      {"half before it", [](int64_t t, double) { return t < T / 2 ? -1 : t % 3; }}};
  constexpr int64_t kFirst = 20;  // token of the table, which is a part of a larger one
  for (const auto& [name, token] : batches) {
    SCOPED_TRACE(name);
    std::vector<double> tokens(T);
    for (int64_t t = 0; t < T; ++t) {
      tokens[t] = kFirst + static_cast<double>(token(t, RandomStream(1, "Zipf").Uniform(t)));
    }
    const VocabularyRange range{kFirst, V + 100};
    const Tensor on_ctx = test::FromValues(ctx, DType::kI32, {T}, tokens);
    const Tensor dy = RandomTensor(ctx, GetParam(), {T, D}, "dy");
    const Tensor dw = RandomTensor(ctx, PreciseDType(GetParam()), {V, D}, "dw");
    std::vector<double> sum = test::ToDoubles(dw);
    const std::vector<double> terms = test::ToDoubles(dy);
    for (int64_t t = 0; t < T; ++t) {
      const auto row = static_cast<int64_t>(tokens[t]) - kFirst;
      for (int64_t d = 0; d < D && 0 <= row && row < V; ++d) sum[row * D + d] += terms[t * D + d];
    }
    EmbeddingGradient({.tokens = on_ctx, .dy = dy, .range = range, .dw = dw, .accumulate = true},
                      ctx);
    test::ExpectClose(dw, test::FromValues(on_device.host(), DType::kF64, {V, D}, sum), T);
  }
}

// The results of the parts of a table add up to the whole's; each part's gradient is its rows'.
TEST_P(EmbeddingTest, PartsOfATable) {
  test::DeviceContext on_device;
  Context& ctx = on_device.of(GetParam());
  constexpr int64_t T = 400, V = 7, D = 5;
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
