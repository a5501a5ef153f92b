// Products of rows that stand elsewhere, and their sums.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/simd_amx_software.h"
#include "kernels/cpu/weight_images.h"
#include "kernels/linear.h"
#include "tests/testing/linear_cases.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::ExpectSameBits;
using test::LinearCase;
using test::Normal;
using test::Values;

// Those of this processor, and tiles played in software.
std::vector<const cpu::SimdKernels*> AllSimd() {
  static const cpu::SimdKernels software_amx = cpu::SoftwareAmxKernels();
  std::vector<const cpu::SimdKernels*> all = cpu::SupportedSimd();
  all.push_back(&software_amx);
  return all;
}

// Products of rows that stand elsewhere, in either direction of the weight, beside the reference;
// the reference beside rows that are copied.
class RowsElsewhereTest : public testing::TestWithParam<LinearCase> {
 protected:
  static constexpr int64_t kTokens = 50;

  void SetUp() override {
    rows_ = GetParam().TokensOfRows(context_, kTokens);
    offsets_ = GetParam().Offsets(context_);
    w_shape_ = {GetParam().num_groups(), GetParam().N, GetParam().K};
  }

  Tensor Image(const Tensor& master, DType dtype, bool transposed, const cpu::SimdKernels& simd) {
    const int64_t N = GetParam().N, K = GetParam().K;
    const cpu::WeightDims dims = {.outputs = transposed ? K : N, .inputs = transposed ? N : K};
    const Tensor image =
        context_.Empty(dtype, {w_shape_[0], cpu::PackedElements(dims, dtype, simd)}, "image");
    cpu::PackWeight(master, {transposed, image}, context_, simd);
    return image;
  }

  // [T, width] to [R, width], in F64.
  Tensor Gather(const Tensor& x) {
    const int64_t width = x.shape()[1];
    const Tensor y = context_.Empty(DType::kF64, {rows_.size(), width}, "gathered");
    for (int64_t r = 0; r < rows_.size(); ++r) {
      std::copy_n(x.data<double>() + rows_.data<int32_t>()[r] * width, width,
                  y.data<double>() + r * width);
    }
    return y;
  }

  Context context_{{.num_threads = 2}};
  Tensor rows_, offsets_;
  Shape w_shape_;
};

TEST_P(RowsElsewhereTest, Gather) {
  const int64_t R = rows_.size(), N = GetParam().N, K = GetParam().K;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Values x = Normal(context_, dtype, {kTokens, K}, "x");
    const Values dy = Normal(context_, dtype, {kTokens, N}, "dy");
    const Values w = Normal(context_, dtype, w_shape_, "w");
    const Tensor y = context_.Empty(DType::kF64, {R, N}, "y"),
                 copied = context_.Empty(DType::kF64, {R, N}, "y");
    Linear({.x = x.exact, .w = w.exact, .offsets = offsets_, .y = y, .rows = rows_}, context_);
    Linear({.x = Gather(x.exact), .w = w.exact, .offsets = offsets_, .y = copied}, context_);
    ExpectSameBits(y, copied);
    const Tensor dx = context_.Empty(DType::kF64, {R, K}, "dx"),
                 dx_copied = context_.Empty(DType::kF64, {R, K}, "dx");
    LinearInputGradient(
        {.dy = dy.exact, .w = w.exact, .offsets = offsets_, .dx = dx, .rows = rows_}, context_);
    LinearInputGradient(
        {.dy = Gather(dy.exact), .w = w.exact, .offsets = offsets_, .dx = dx_copied}, context_);
    ExpectSameBits(dx, dx_copied);
    const Tensor dw = context_.Empty(DType::kF64, w_shape_, "dw"),
                 dw_copied = context_.Empty(DType::kF64, w_shape_, "dw");
    LinearWeightGradient({.dy = dy.exact,
                          .x = x.exact,
                          .offsets = offsets_,
                          .dw = dw,
                          .dy_rows = rows_,
                          .x_rows = rows_},
                         context_);
    LinearWeightGradient(
        {.dy = Gather(dy.exact), .x = Gather(x.exact), .offsets = offsets_, .dw = dw_copied},
        context_);
    ExpectSameBits(dw, dw_copied);

    const Tensor master = test::Convert(context_, w.exact, DType::kF32);
    for (const cpu::SimdKernels* simd : AllSimd()) {
      SCOPED_TRACE(testing::Message() << NameOf(dtype) << " " << simd->name);
      const Tensor fast = context_.Empty(dtype, {R, N}, "y");
      cpu::Multiply({x.tensor, Image(master, dtype, false, *simd), offsets_, fast, false, rows_},
                    context_, *simd);
      ExpectClose(fast, y, K);
      const Tensor dx_fast = context_.Empty(dtype, {R, K}, "dx");
      cpu::Multiply({dy.tensor, Image(master, dtype, true, *simd), offsets_, dx_fast, false, rows_},
                    context_, *simd);
      ExpectClose(dx_fast, dx, N);
      const Tensor dw_fast = context_.Empty(DType::kF32, w_shape_, "dw");
      cpu::LinearWeightGradient({.dy = dy.tensor,
                                 .x = x.tensor,
                                 .offsets = offsets_,
                                 .dw = dw_fast,
                                 .dy_rows = rows_,
                                 .x_rows = rows_},
                                context_, *simd);
      ExpectClose(dw_fast, dw, R);
    }
  }
}

TEST_P(RowsElsewhereTest, Sum) {
  const int64_t R = rows_.size(), N = GetParam().N, K = GetParam().K;
  const Values weights = Normal(context_, DType::kF32, {R}, "weights");
  for (const auto& [dtype, out] :
       {std::pair{DType::kF32, DType::kF32}, std::pair{DType::kBF16, DType::kBF16},
        std::pair{DType::kBF16, DType::kF32}}) {
    for (const bool transposed : {false, true}) {
      for (const bool weighted : {false, true}) {
        const int64_t inputs = transposed ? N : K, outputs = transposed ? K : N;
        const auto format = transposed ? WeightFormat::kPackedTransposed : WeightFormat::kPacked;
        const bool accumulate = weighted;
        const Values x = Normal(context_, dtype, {R, inputs}, "x");
        const Values w = Normal(context_, dtype, w_shape_, "w");
        const Values y = Normal(context_, out, {kTokens, outputs}, "y");
        // By hand: products of rows, then their sums.
        const Tensor products = context_.Empty(DType::kF64, {R, outputs}, "products");
        transposed
            ? LinearInputGradient(
                  {.dy = x.exact, .w = w.exact, .offsets = offsets_, .dx = products}, context_)
            : Linear({.x = x.exact, .w = w.exact, .offsets = offsets_, .y = products}, context_);
        const Tensor sums = test::Convert(context_, y.exact, DType::kF64);
        if (!accumulate) std::ranges::fill(sums.span<double>(), 0.0);
        for (int64_t r = 0; r < R; ++r) {
          for (int64_t i = 0; i < outputs; ++i) {
            sums.data<double>()[rows_.data<int32_t>()[r] * outputs + i] +=
                (weighted ? weights.exact.data<double>()[r] : 1) *
                products.data<double>()[r * outputs + i];
          }
        }
        LinearSum({.x = x.exact,
                   .w = w.exact,
                   .format = format,
                   .offsets = offsets_,
                   .rows = rows_,
                   .weights = weighted ? weights.exact : Tensor(),
                   .y = y.exact,
                   .accumulate = accumulate},
                  context_);
        ExpectClose(y.exact, sums, inputs + R);

        const Tensor master = test::Convert(context_, w.exact, DType::kF32);
        for (const cpu::SimdKernels* simd : AllSimd()) {
          SCOPED_TRACE(testing::Message()
                       << NameOf(dtype) << " " << transposed << weighted << " " << simd->name);
          const Tensor fast = Normal(context_, out, {kTokens, outputs}, "y").tensor;
          cpu::MultiplySum({.x = x.tensor,
                            .w = Image(master, dtype, transposed, *simd),
                            .format = format,
                            .offsets = offsets_,
                            .rows = rows_,
                            .weights = weighted ? weights.tensor : Tensor(),
                            .y = fast,
                            .accumulate = accumulate},
                           context_, *simd);
          ExpectClose(fast, sums, inputs + R);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RowsElsewhereTest, testing::ValuesIn(test::LinearCases()));

}  // namespace
}  // namespace moebius::kernels
