#include "kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::RandomTensor;
using test::ToDoubles;

TEST(CrossEntropy, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  const int64_t cases[][2] = {{19, 1000}, {1, 1}, {3, 7}, {0, 4}};
  for (const auto& [R, V] : cases) {
    for (const DType gradient_dtype : {DType::kF32, DType::kBF16}) {
      const Tensor logits = RandomTensor(ctx, DType::kF32, {R, V}, "logits", 5);
      std::vector<double> label = ToDoubles(test::RandomInts(ctx, {R}, V, "labels"));
      std::vector<double> weight = ToDoubles(RandomTensor(ctx, DType::kF32, {R}, "weights"));
      if (R > 1) weight[1] = 0, label[1] = -100;  // padding
      const Tensor labels = test::FromValues(ctx, DType::kI32, {R}, label);
      const Tensor weights = test::FromValues(ctx, DType::kF32, {R}, weight);
      const Tensor nll = ctx.Empty(DType::kF64, {R}, "nll");
      const Tensor only_nll = ctx.Empty(DType::kF64, {R}, "nll");
      const Tensor exact_nll = ctx.host().Empty(DType::kF64, {R}, "nll");
      const Tensor exact = ctx.Exact(logits);
      const Tensor dlogits =
          gradient_dtype == DType::kF32 ? logits : ctx.Empty(gradient_dtype, {R, V}, "dlogits");
      CrossEntropy({exact, ctx.Exact(labels), ctx.Exact(weights), exact_nll, exact}, ctx.host());
      CrossEntropy({logits, labels, weights, only_nll}, ctx);
      CrossEntropy({logits, labels, weights, nll, dlogits}, ctx);

      test::ExpectSameBits(nll, only_nll);
      test::ExpectClose(Convert(ctx, nll, DType::kF32), exact_nll, V);
      test::ExpectClose(dlogits, exact, V);
    }
  }
}

// Three uneven parts of the vocabulary give what whole rows give.
TEST(CrossEntropy, PartsOfTheVocabulary) {
  test::DeviceContext on_device({.num_threads = 2});
  constexpr int64_t R = 6, V = 10;
  const std::pair<int64_t, int64_t> ranges[] = {{0, 4}, {4, 7}, {7, 10}};
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    Context& ctx = on_device.of(dtype);
    const Tensor logits = RandomTensor(ctx, dtype, {R, V}, "logits", 5);
    const Tensor labels = test::FromValues(ctx, DType::kI32, {R}, {0, -100, 3, 4, 7, 9});
    const Tensor weights = test::FromValues(ctx, dtype, {R}, {1, 0, 2, 1, 0.5, 1});
    const Tensor nll = ctx.Empty(DType::kF64, {R}, "nll"), dlogits = ctx.Empty(dtype, {R, V}, "d");
    CrossEntropy({logits, labels, weights, nll, dlogits}, ctx);

    const auto columns = [&](const Tensor& x, int64_t begin, int64_t end) {
      std::vector<double> values;
      const std::vector<double> all = ToDoubles(x);
      for (int64_t r = 0; r < R; ++r) {
        values.insert(values.end(), all.begin() + r * V + begin, all.begin() + r * V + end);
      }
      return test::FromValues(ctx, dtype, {R, end - begin}, values);
    };
    const Tensor parts = ctx.Empty(DType::kF64, {3, R, 3}, "statistics");
    const Tensor whole = ctx.Empty(DType::kF64, {R, 3}, "statistics");
    for (int i = 0; i < 3; ++i) {
      const auto [begin, end] = ranges[i];
      CrossEntropyStatistics({.logits = columns(logits, begin, end),
                              .labels = labels,
                              .weights = weights,
                              .first = begin,
                              .statistics = parts.Slice(i, i + 1).Reshape({R, 3})},
                             ctx);
    }
    CombineStatistics(parts, whole, ctx);
    for (const auto& [begin, end] : ranges) {
      const Tensor part = columns(logits, begin, end);
      const Tensor part_nll = ctx.Empty(DType::kF64, {R}, "nll");
      CrossEntropyOfPart({.logits = part,
                          .labels = labels,
                          .weights = weights,
                          .first = begin,
                          .statistics = whole,
                          .nll = part_nll,
                          .dlogits = part},
                         ctx);
      const std::vector<double> of_part = ToDoubles(part_nll), of_whole = ToDoubles(nll);
      for (int64_t r = 0; r < R; ++r) {
        EXPECT_NEAR(of_part[r], of_whole[r], dtype == DType::kF64 ? 1e-13 : 2e-5);
      }
      test::ExpectClose(part, on_device.Exact(columns(dlogits, begin, end)), V);
    }
  }
}

TEST(CrossEntropy, KnownValuesAndExtremeLogits) {
  test::DeviceContext on_device;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Context& ctx = on_device.of(dtype);
    const Tensor logits = test::FromValues(ctx, dtype, {2, 2}, {std::log(3.0), 0, 1e30, -1e30});
    const Tensor labels = test::FromValues(ctx, DType::kI32, {2}, {0, 0});
    const Tensor weights = test::FromValues(ctx, dtype, {2}, {2, 1});
    const Tensor nll = ctx.Empty(DType::kF64, {2}, "nll");
    CrossEntropy({logits, labels, weights, nll, logits}, ctx);
    EXPECT_NEAR(ToDoubles(nll)[0], 2 * std::log(4.0 / 3), 1e-6);
    EXPECT_NEAR(ToDoubles(nll)[1], 0, 1e-6);
    const std::vector<double> expected = {-0.5, 0.5, 0, 0};
    for (const int i : {0, 1, 2, 3}) EXPECT_NEAR(ToDoubles(logits)[i], expected[i], 1e-6);
  }
}

// As where some labels are ruled out.
TEST(CrossEntropy, LogitsOfMinusInfinity) {
  test::DeviceContext on_device;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Context& ctx = on_device.of(dtype);
    const Tensor logits = test::FromValues(ctx, dtype, {1, 4}, {-INFINITY, 0, -INFINITY, 0});
    const Tensor label = test::FromValues(ctx, DType::kI32, {1}, {3});
    const Tensor weight = test::FromValues(ctx, dtype, {1}, {1});
    const Tensor nll = ctx.Empty(DType::kF64, {1}, "nll");
    CrossEntropy({logits, label, weight, nll, logits}, ctx);
    EXPECT_NEAR(ToDoubles(nll)[0], std::log(2.0), 1e-6);
    const std::vector<double> expected = {0, 0.5, 0, -0.5};
    for (const int i : {0, 1, 2, 3}) EXPECT_NEAR(ToDoubles(logits)[i], expected[i], 1e-6);
  }
}

}  // namespace
}  // namespace moebius::kernels
