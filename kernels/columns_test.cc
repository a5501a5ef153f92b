#include "kernels/columns.h"

#include <gtest/gtest.h>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::Convert;
using test::RandomTensor;

TEST(Columns, KnownAnswer) {
  test::DeviceContext ctx;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    Context& on = ctx.of(dtype);
    const Tensor x = test::FromValues(on, dtype, {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
    const Tensor y = on.Empty(dtype, {2, 2}, "y");
    Columns(x, 1, y, on);
    EXPECT_EQ(test::ToDoubles(y), (std::vector<double>{2, 3, 6, 7}));
    ColumnsGradient({.dy = y, .begin = 2, .dx = x, .accumulate = true}, on);
    EXPECT_EQ(test::ToDoubles(x), (std::vector<double>{1, 2, 5, 7, 5, 6, 13, 15}));
    ColumnsGradient({.dy = y, .begin = 1, .dx = x}, on);
    EXPECT_EQ(test::ToDoubles(x), (std::vector<double>{0, 2, 3, 0, 0, 6, 7, 0}));
  }
}

TEST(Columns, AgreesWithTheReference) {
  test::DeviceContext ctx({.num_threads = 2});
  const int64_t cases[][4] = {// T, N, begin, n
                              {300, 48, 16, 8},
                              {1, 5, 0, 5},
                              {70, 33, 32, 1},
                              {3, 4, 2, 0},
                              {0, 8, 4, 4}};
  for (const auto& [T, N, begin, n] : cases) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = RandomTensor(ctx, dtype, {T, N}, "x");
      const Tensor y = ctx.Empty(dtype, {T, n}, "y");
      const Tensor y_exact = ctx.host().Empty(DType::kF64, {T, n}, "y");
      Columns(x, begin, y, ctx);
      Columns(ctx.Exact(x), begin, y_exact, ctx.host());
      test::ExpectSameBits(y, Convert(ctx, y_exact, dtype));
      for (const bool accumulate : {false, true}) {
        const Tensor dx = RandomTensor(ctx, dtype, {T, N}, "dx");
        const Tensor dx_exact = ctx.Exact(dx);
        ColumnsGradient({.dy = y, .begin = begin, .dx = dx, .accumulate = accumulate}, ctx);
        ColumnsGradient({.dy = y_exact, .begin = begin, .dx = dx_exact, .accumulate = accumulate},
                        ctx.host());
        test::ExpectClose(dx, dx_exact, 1);
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
