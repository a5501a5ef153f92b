#include "kernels/linear.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/base/random.h"
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

void PrintTo(const Case& c, std::ostream* out) {
  *out << "[" << c.N << ", " << c.K << "] over " << testing::PrintToString(c.rows);
}

// Odd sizes, several panels and chunks, one row, empty groups, no rows, all rows in one group.
const Case kCases[] = {
    {1, 1, {1}},      {33, 5, {7}},         {64, 256, {130}},        {31, 515, {29}},
    {70, 1031, {3}},  {5, 7, {0}},          {17, 33, {5, 0, 1, 40}}, {48, 9, {0, 0, 140, 0}},
    {40, 24, {0, 0}}, {256, 96, {15, 300}}, {600, 40, {130}},
};

struct Operands {
  Operands(Context& context, const Case& c) : N(c.N), K(c.K), e(std::ssize(c.rows)) {
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

class LinearTest : public testing::TestWithParam<Case> {
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
        cpu::PackWeight(master, transposed, image, context_, *simd);
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

INSTANTIATE_TEST_SUITE_P(All, LinearTest, testing::ValuesIn(kCases));

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

// Products of rows that stand elsewhere, in either direction of the weight, beside the reference;
// the reference beside rows that are copied.
class RowsElsewhereTest : public LinearTest {
 protected:
  static constexpr int64_t kTokens = 50;

  void SetUp() override {
    const auto R = std::accumulate(GetParam().rows.begin(), GetParam().rows.end(), 0);
    rows_ = context_.Empty(DType::kI32, {R}, "rows");
    const RandomStream stream(1, "rows");
    for (int64_t r = 0; r < R; ++r) {
      rows_.data<int32_t>()[r] = static_cast<int32_t>(stream.Below(r, kTokens));
    }
    offsets_ = context_.Zeros(DType::kI32, {std::ssize(GetParam().rows) + 1}, "offsets");
    std::partial_sum(GetParam().rows.begin(), GetParam().rows.end(), offsets_.data<int32_t>() + 1);
    w_shape_ = {std::ssize(GetParam().rows), GetParam().N, GetParam().K};
  }

  Tensor Image(const Tensor& master, DType dtype, bool transposed, const cpu::SimdKernels& simd) {
    const int64_t N = GetParam().N, K = GetParam().K;
    const cpu::WeightDims dims = {.outputs = transposed ? K : N, .inputs = transposed ? N : K};
    const Tensor image =
        context_.Empty(dtype, {w_shape_[0], cpu::PackedElements(dims, dtype, simd)}, "image");
    cpu::PackWeight(master, transposed, image, context_, simd);
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
    for (const cpu::SimdKernels* simd : cpu::SupportedSimd()) {
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
        for (const cpu::SimdKernels* simd : cpu::SupportedSimd()) {
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

INSTANTIATE_TEST_SUITE_P(All, RowsElsewhereTest, testing::ValuesIn(kCases));

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
