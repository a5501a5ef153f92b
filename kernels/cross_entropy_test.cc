#include "kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::RandomTensor;
using test::ToDoubles;

TEST(CrossEntropy, AgreesWithTheReference) {
  Context ctx({.num_threads = 2});
  const int64_t cases[][2] = {{19, 1000}, {1, 1}, {3, 7}, {0, 4}};
  for (const auto& [R, V] : cases) {
    for (const DType gradient_dtype : {DType::kF32, DType::kBF16}) {
      const Tensor logits = RandomTensor(ctx, DType::kF32, {R, V}, "logits", 5);
      const Tensor labels = test::RandomInts(ctx, {R}, V, "labels");
      const Tensor weights = RandomTensor(ctx, DType::kF32, {R}, "weights");
      if (R > 1) {  // padding
        weights.data<float>()[1] = 0;
        labels.data<int32_t>()[1] = -100;
      }
      const Tensor nll = ctx.Empty(DType::kF64, {R}, "nll"),
                   exact_nll = Convert(ctx, nll, nll.dtype());
      const Tensor exact = Convert(ctx, logits, DType::kF64);
      const Tensor dlogits =
          gradient_dtype == DType::kF32 ? logits : ctx.Empty(gradient_dtype, {R, V}, "dlogits");
      CrossEntropy({exact, labels, Convert(ctx, weights, DType::kF64), exact_nll, exact}, ctx);
      const Tensor only_nll = Convert(ctx, nll, nll.dtype());
      CrossEntropy({logits, labels, weights, only_nll}, ctx);
      CrossEntropy({logits, labels, weights, nll, dlogits}, ctx);

      test::ExpectSameBits(nll, only_nll);
      test::ExpectClose(Convert(ctx, nll, DType::kF32), exact_nll, V);
      test::ExpectClose(dlogits, exact, V);
    }
  }
}

TEST(CrossEntropy, KnownValuesAndExtremeLogits) {
  Context ctx;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
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

}  // namespace
}  // namespace moebius::kernels
