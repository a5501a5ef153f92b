#include "kernels/linear.h"

#include <gtest/gtest.h>

#include "kernels/cpu/linear.h"
#include "kernels/weight_images.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::ExpectSameBits;
using test::RandomTensor;

// Standard normal values of a dtype, and the same values in F64.
struct Values {
  Tensor tensor, exact;
};

Values Normal(Context& context, DType dtype, const Shape& shape, const char* name) {
  const Tensor x = RandomTensor(context, dtype, shape, name);
  return {x, test::Convert(context, x, DType::kF64)};
}

struct Case {
  int64_t N, K;
  std::vector<int> rows;  // of each group; one group: dense
};

// Odd sizes, several panels and chunks, one row, empty groups, no rows, all rows in one group.
const Case kCases[] = {
    {1, 1, {1}},      {33, 5, {7}},         {64, 256, {130}},        {31, 515, {29}},
    {70, 1031, {3}},  {5, 7, {0}},          {17, 33, {5, 0, 1, 40}}, {48, 9, {0, 0, 140, 0}},
    {40, 24, {0, 0}}, {256, 96, {15, 300}}, {600, 40, {130}},
};

class LinearTest : public testing::TestWithParam<std::tuple<int, const char*>> {
 protected:
  LinearTest() : context_({.num_threads = 2}) {
    for (const cpu::SimdKernels* kernels : cpu::SupportedSimd()) {
      if (std::string(kernels->name) == std::get<1>(GetParam())) simd_ = kernels;
    }
    const Case& c = kCases[std::get<0>(GetParam())];
    const int64_t e = std::ssize(c.rows);
    if (e > 1) offsets_ = context_.Empty(DType::kI32, {e + 1}, "offsets");
    for (int64_t j = 0; j < e; ++j) {
      if (e > 1) offsets_.data<int32_t>()[j] = static_cast<int32_t>(R_);
      R_ += c.rows[j];
    }
    if (e > 1) offsets_.data<int32_t>()[e] = static_cast<int32_t>(R_);
    N_ = c.N;
    K_ = c.K;
    w_shape_ = e > 1 ? Shape{e, N_, K_} : Shape{N_, K_};
  }

  Context context_;
  const cpu::SimdKernels* simd_ = nullptr;
  int64_t R_ = 0, N_ = 0, K_ = 0;
  Tensor offsets_;
  Shape w_shape_;
};

TEST_P(LinearTest, AgreesWithDoublePrecision) {
  if (simd_ == nullptr) GTEST_SKIP() << "not on this processor";
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Values x = Normal(context_, dtype, {R_, K_}, "x"),
                 dy = Normal(context_, dtype, {R_, N_}, "dy");
    // The master is F32; the products read it rounded to their dtype.
    const Values w = Normal(context_, dtype, w_shape_, "w");
    const Tensor w_f32 = context_.Empty(DType::kF32, w_shape_, "w");
    for (int64_t i = 0; i < w_f32.size(); ++i) {
      w_f32.data<float>()[i] = static_cast<float>(w.exact.data<double>()[i]);
    }
    const int64_t e = w_shape_.rank() == 3 ? w_shape_[0] : 1;
    const auto pack = [&](bool transposed) {
      const cpu::WeightDims dims = {.outputs = transposed ? K_ : N_,
                                    .inputs = transposed ? N_ : K_};
      const Tensor image =
          context_.Empty(dtype, {e, cpu::PackedElements(dims, dtype, *simd_)}, "image");
      cpu::PackWeight(w_f32, transposed, image, context_, *simd_);
      return image;
    };
    for (const DType out : {DType::kF32, dtype}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << NameOf(dtype) << " to " << NameOf(out) << " accumulate " << accumulate);
        const Values y = Normal(context_, out, {R_, N_}, "y");
        cpu::Multiply({x.tensor, pack(false), offsets_, y.tensor, accumulate}, context_, *simd_);
        Linear({x.exact, w.exact, offsets_, y.exact, accumulate}, context_);
        ExpectClose(y.tensor, y.exact, K_);

        const Values dx = Normal(context_, out, {R_, K_}, "dx");
        cpu::Multiply({dy.tensor, pack(true), offsets_, dx.tensor, accumulate}, context_, *simd_);
        LinearInputGradient({dy.exact, w.exact, offsets_, dx.exact, accumulate}, context_);
        ExpectClose(dx.tensor, dx.exact, N_);

        const Values dw = Normal(context_, DType::kF32, w_shape_, "dw");
        cpu::LinearWeightGradient({dy.tensor, x.tensor, offsets_, dw.tensor, accumulate}, context_,
                                  *simd_);
        LinearWeightGradient({dy.exact, x.exact, offsets_, dw.exact, accumulate}, context_);
        ExpectClose(dw.tensor, dw.exact, R_);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest,
                         testing::Combine(testing::Range(0, static_cast<int>(std::size(kCases))),
                                          testing::Values("generic", "avx2", "avx512",
                                                          "avx512_bf16")),
                         [](const auto& info) {
                           return std::string(std::get<1>(info.param)) + "_" +
                                  std::to_string(std::get<0>(info.param));
                         });

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
