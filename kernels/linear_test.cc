#include "kernels/linear.h"

#include <gtest/gtest.h>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/weight_images.h"
#include "kernels/weight_images.h"
#include "tests/testing/linear_cases.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::ExpectSameBits;
using test::kLinearCases;
using test::LinearCase;
using test::Normal;
using test::Values;

struct Operands {
  Operands(Context& context, const LinearCase& c) : N(c.N), K(c.K), e(std::ssize(c.rows)) {
    if (e > 1) offsets = context.Zeros(DType::kI32, {e + 1}, "offsets");
    for (int64_t j = 0; j < e; ++j) {
      R += c.rows[j];
      if (e > 1) offsets.data<int32_t>()[j + 1] = static_cast<int32_t>(R);
    }
    w_shape = e > 1 ? Shape{e, N, K} : Shape{N, K};
  }

  int64_t R = 0, N, K, e;
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

INSTANTIATE_TEST_SUITE_P(All, LinearTest, testing::ValuesIn(kLinearCases));

TEST(Linear, KnownAnswerInDoublePrecision) {
  Context context;
  const Tensor x = context.Empty(DType::kF64, {2, 2}, "x"),
               w = context.Empty(DType::kF64, {3, 2}, "w");
  std::ranges::copy(std::vector<double>{1, 2, 3, 4}, x.data<double>());
  std::ranges::copy(std::vector<double>{1, 0, 0, 1, 2, -1}, w.data<double>());
  const Tensor y = context.Empty(DType::kF64, {2, 3}, "y");
  Linear({.x = x, .w = w, .y = y}, context);
  EXPECT_EQ(std::vector(y.span<double>().begin(), y.span<double>().end()),
            (std::vector<double>{1, 2, 0, 3, 4, 2}));
  const Tensor dx = context.Empty(DType::kF64, {2, 2}, "dx");
  LinearInputGradient({.dy = y, .w = w, .dx = dx}, context);
  EXPECT_EQ(std::vector(dx.span<double>().begin(), dx.span<double>().end()),
            (std::vector<double>{1, 2, 7, 2}));
  const Tensor dw = context.Empty(DType::kF64, {3, 2}, "dw");
  LinearWeightGradient({.dy = y, .x = x, .dw = dw}, context);
  EXPECT_EQ(std::vector(dw.span<double>().begin(), dw.span<double>().end()),
            (std::vector<double>{10, 14, 14, 20, 6, 8}));
}

// The bits of a row depend neither on the threads nor on the rows beside it.
TEST(Linear, BitsDependOnOperandsAlone) {
  constexpr int64_t kRows = 300, kN = 200, kK = 700;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Context one({.num_threads = 1}), four({.num_threads = 4});
    const Values x = Normal(one, dtype, {kRows, kK}, "x"),
                 dy = Normal(one, dtype, {kRows, kN}, "dy");
    const Tensor w = Normal(one, DType::kF32, {kN, kK}, "w").tensor;
    const auto run = [&](Context& context, int64_t begin, int64_t end) {
      const Tensor image = MakeWeightImage(w, WeightFormat::kPacked, dtype, context);
      const Tensor y = context.Empty(dtype, {end - begin, kN}, "y");
      Linear({.x = x.tensor.Slice(begin, end), .w = image, .y = y}, context);
      return y;
    };
    const auto gradient = [&](Context& context) {
      const Tensor dw = context.Empty(DType::kF32, {kN, kK}, "dw");
      LinearWeightGradient({.dy = dy.tensor, .x = x.tensor, .dw = dw}, context);
      return dw;
    };
    const Tensor y = run(one, 0, kRows);
    ExpectSameBits(y, run(four, 0, kRows));
    ExpectSameBits(y.Slice(77, 78), run(four, 77, 78));
    ExpectSameBits(gradient(one), gradient(four));
  }
}

TEST(Linear, RunsWithoutDataOnMeta) {
  Context context({.device = kMeta});
  const Tensor w = context.Empty(DType::kF32, {4, 1024, 512}, "w");
  const Tensor y = context.Empty(DType::kBF16, {1000, 1024}, "y");
  Linear({.x = context.Empty(DType::kBF16, {1000, 512}, "x"),
          .w = MakeWeightImage(w, WeightFormat::kPacked, DType::kBF16, context),
          .offsets = context.Empty(DType::kI32, {5}, "offsets"),
          .y = y},
         context);
  EXPECT_EQ(context.arena().mapped_bytes(), 0);
}

TEST(Linear, RefusesAnImageOfAnotherShape) {
  Context context;
  const Tensor w = context.Zeros(DType::kF32, {32, 8}, "w");
  EXPECT_DEATH(Linear({.x = context.Zeros(DType::kF32, {2, 9}, "x"),
                       .w = MakeWeightImage(w, WeightFormat::kPacked, DType::kF32, context),
                       .y = context.Zeros(DType::kF32, {2, 32}, "y")},
                      context),
               "image");
}

TEST(ResidentWeights, RebuildsAnImageAfterAnUpdate) {
  Context context;
  Parameter w;
  w.value = Normal(context, DType::kF32, {3, 4}, "w").tensor;
  ResidentWeights weights(context);
  EXPECT_EQ(weights.Lease(w, WeightFormat::kPlain, DType::kF32).raw(), w.value.raw());
  const Tensor before = weights.Lease(w, WeightFormat::kPlain, DType::kBF16);
  EXPECT_EQ(before.data<BF16>()[5].bits, BF16(w.value.data<float>()[5]).bits);
  w.value.data<float>()[5] = 7;
  EXPECT_NE(test::ToDoubles(weights.Lease(w, WeightFormat::kPlain, DType::kBF16))[5], 7);
  ++w.version;
  const Tensor after = weights.Lease(w, WeightFormat::kPlain, DType::kBF16);
  EXPECT_EQ(test::ToDoubles(after)[5], 7);
  EXPECT_EQ(after.raw(), before.raw());

  Parameter exact;
  exact.value = context.Zeros(DType::kF64, {3, 4}, "w");
  EXPECT_EQ(weights.Lease(exact, WeightFormat::kPacked, DType::kF64).raw(), exact.value.raw());
}

}  // namespace
}  // namespace moebius::kernels
