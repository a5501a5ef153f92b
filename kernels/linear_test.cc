// Products by every instruction set of this processor.
#include "kernels/linear.h"

#include <gtest/gtest.h>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/weight_images.h"
#include "tests/testing/linear_cases.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::LinearCase;
using test::Normal;
using test::Values;

struct Operands {
  Operands(Context& context, const LinearCase& c)
      : R(c.num_rows()), N(c.N), K(c.K), e(c.num_groups()) {
    if (e > 1) offsets = c.Offsets(context);
    w_shape = e > 1 ? Shape{e, N, K} : Shape{N, K};
  }

  int64_t R, N, K, e;
  Tensor offsets;
  Shape w_shape;
};

class LinearTest : public testing::TestWithParam<LinearCase> {
 protected:
  // Of all instruction sets, each with images of its own.
  void Check(const Operands& o, DType dtype, DType out, bool accumulate) {
    const Values x = Normal(context_, dtype, {o.R, o.K}, "x");
    const Values dy = Normal(context_, dtype, {o.R, o.N}, "dy");
    // The master is F32; the products read it rounded to their dtype.
    const Values w = Normal(context_, dtype, o.w_shape, "w");
    const Tensor master = test::Convert(context_, w.exact, DType::kF32);
    const Values y = Normal(context_, out, {o.R, o.N}, "y");
    const Values dx = Normal(context_, out, {o.R, o.K}, "dx");
    const Values dw = Normal(context_, DType::kF32, o.w_shape, "dw");
    Linear({x.exact, w.exact, o.offsets, y.exact, accumulate}, context_);
    LinearInputGradient({dy.exact, w.exact, o.offsets, dx.exact, accumulate}, context_);
    LinearWeightGradient({dy.exact, x.exact, o.offsets, dw.exact, accumulate}, context_);

    for (const cpu::SimdKernels* simd : cpu::SupportedSimd()) {
      SCOPED_TRACE(simd->name);
      const auto pack = [&](bool transposed) {
        const cpu::WeightDims dims = {.outputs = transposed ? o.K : o.N,
                                      .inputs = transposed ? o.N : o.K};
        const Tensor image =
            context_.Empty(dtype, {o.e, cpu::PackedElements(dims, dtype, *simd)}, "image");
        cpu::PackWeight(master, {transposed, image}, context_, *simd);
        return image;
      };
      const Tensor y_fast = Normal(context_, out, {o.R, o.N}, "y").tensor;
      cpu::Multiply({x.tensor, pack(false), o.offsets, y_fast, accumulate}, context_, *simd);
      ExpectClose(y_fast, y.exact, o.K);

      const Tensor dx_fast = Normal(context_, out, {o.R, o.K}, "dx").tensor;
      cpu::Multiply({dy.tensor, pack(true), o.offsets, dx_fast, accumulate}, context_, *simd);
      ExpectClose(dx_fast, dx.exact, o.N);

      const Tensor dw_fast = Normal(context_, DType::kF32, o.w_shape, "dw").tensor;
      cpu::LinearWeightGradient({dy.tensor, x.tensor, o.offsets, dw_fast, accumulate}, context_,
                                *simd);
      ExpectClose(dw_fast, dw.exact, o.R);
    }
  }

  Context context_{{.num_threads = 2}};
};

TEST_P(LinearTest, AgreesWithDoublePrecision) {
  const Operands operands(context_, GetParam());
  for (const auto& [dtype, out] :
       {std::pair{DType::kF32, DType::kF32}, std::pair{DType::kBF16, DType::kBF16},
        std::pair{DType::kBF16, DType::kF32}}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << NameOf(dtype) << " to " << NameOf(out) << " accumulate " << accumulate);
      Check(operands, dtype, out, accumulate);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest, testing::ValuesIn(test::LinearCases()));

// Gradients far larger than a cache are written past it: full rows of groups of one chunk, few
// rows or none; and widths that do not allow it.
TEST(Linear, LargeWeightGradients) {
  Context context({.num_threads = 2});
  for (const int64_t K : {512, 515}) {
    constexpr int64_t kRows = 21, kN = 1030;
    const Tensor offsets = context.Empty(DType::kI32, {4}, "offsets");
    std::ranges::copy(std::vector<int32_t>{0, 2, 2, 21}, offsets.data<int32_t>());
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Values x = Normal(context, dtype, {kRows, K}, "x");
      const Values dy = Normal(context, dtype, {kRows, kN}, "dy");
      const Tensor exact = context.Empty(DType::kF64, {3, kN, K}, "dw");
      LinearWeightGradient({dy.exact, x.exact, offsets, exact}, context);
      for (const cpu::SimdKernels* simd : cpu::SupportedSimd()) {
        SCOPED_TRACE(testing::Message() << K << " " << NameOf(dtype) << " " << simd->name);
        const Tensor dw = Normal(context, DType::kF32, {3, kN, K}, "dw").tensor;
        cpu::LinearWeightGradient({dy.tensor, x.tensor, offsets, dw}, context, *simd);
        ExpectClose(dw, exact, kRows);
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
