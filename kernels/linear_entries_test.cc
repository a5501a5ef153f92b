// Products through their entries, on any device (tests/testing/device_context.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/linear.h"
#include "kernels/weight_images.h"
#include "tests/testing/device_context.h"
#include "tests/testing/linear_cases.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::ExpectSameBits;
using test::FromValues;
using test::LinearCase;
using test::Normal;
using test::RandomTensor;
using test::Values;

// Of operands, and of a result.
constexpr std::pair<DType, DType> kDTypes[] = {
    {DType::kF32, DType::kF32}, {DType::kBF16, DType::kBF16}, {DType::kBF16, DType::kF32}};

// Beside the same entries in F64.
class LinearEntriesTest : public testing::TestWithParam<LinearCase> {
 protected:
  static constexpr int64_t kTokens = 50;

  // The master is F32; products read it rounded to their dtype.
  Tensor Image(const Values& w, WeightFormat format) {
    return MakeWeightImage(test::Convert(context_, w.exact, DType::kF32), format, w.tensor.dtype(),
                           context_);
  }

  // `elsewhere`: rows are those of tokens.
  void CheckProducts(DType dtype, DType out, bool accumulate, bool elsewhere) {
    const LinearCase& c = GetParam();
    const int64_t R = c.num_rows(), N = c.N, K = c.K, T = elsewhere ? kTokens : R;
    const bool grouped = elsewhere || c.num_groups() > 1;
    const Tensor offsets = grouped ? c.Offsets(context_) : Tensor();
    const Tensor rows = elsewhere ? c.TokensOfRows(context_, T) : Tensor();
    const Tensor exact_offsets = context_.Exact(offsets), exact_rows = context_.Exact(rows);
    const Shape w_shape = grouped ? Shape{c.num_groups(), N, K} : Shape{N, K};
    const Values x = Normal(context_, dtype, {T, K}, "x"),
                 dy = Normal(context_, dtype, {T, N}, "dy");
    const Values w = Normal(context_, dtype, w_shape, "w");
    const Values y = Normal(context_, out, {R, N}, "y"), dx = Normal(context_, out, {R, K}, "dx");
    const Values dw = Normal(context_, DType::kF32, w_shape, "dw");

    Linear({x.exact, w.exact, exact_offsets, y.exact, accumulate, exact_rows}, host_);
    Linear({x.tensor, Image(w, WeightFormat::kPacked), offsets, y.tensor, accumulate, rows},
           context_);
    ExpectClose(y.tensor, y.exact, K);

    LinearInputGradient({dy.exact, w.exact, exact_offsets, dx.exact, accumulate, exact_rows},
                        host_);
    LinearInputGradient({dy.tensor, Image(w, WeightFormat::kPackedTransposed), offsets, dx.tensor,
                         accumulate, rows},
                        context_);
    ExpectClose(dx.tensor, dx.exact, N);

    LinearWeightGradient(
        {dy.exact, x.exact, exact_offsets, dw.exact, accumulate, exact_rows, exact_rows}, host_);
    LinearWeightGradient({dy.tensor, x.tensor, offsets, dw.tensor, accumulate, rows, rows},
                         context_);
    ExpectClose(dw.tensor, dw.exact, R);
  }

  void CheckSum(DType dtype, DType out, bool accumulate, WeightFormat format) {
    const LinearCase& c = GetParam();
    const bool transposed = format == WeightFormat::kPackedTransposed;
    const int64_t inputs = transposed ? c.N : c.K, outputs = transposed ? c.K : c.N;
    const Values x = Normal(context_, dtype, {c.num_rows(), inputs}, "x");
    const Values w = Normal(context_, dtype, {c.num_groups(), c.N, c.K}, "w");
    const Values weights = Normal(context_, DType::kF32, {c.num_rows()}, "weights");
    const Values y = Normal(context_, out, {kTokens, outputs}, "y");
    LinearSumArgs args = {.x = x.exact,
                          .w = w.exact,
                          .format = format,
                          .offsets = c.Offsets(host_),
                          .rows = c.TokensOfRows(host_, kTokens),
                          .weights = accumulate ? weights.exact : Tensor(),
                          .y = y.exact,
                          .accumulate = accumulate};
    LinearSum(args, host_);
    args.x = x.tensor, args.w = Image(w, format), args.y = y.tensor;
    args.offsets = c.Offsets(context_), args.rows = c.TokensOfRows(context_, kTokens);
    if (accumulate) args.weights = weights.tensor;
    LinearSum(args, context_);
    ExpectClose(y.tensor, y.exact, inputs + c.num_rows());
  }

  // A SwiGLU around the products: y and h of the second one; and what dy means for gate, up and
  // weights.
  void CheckSwiGlu(DType dtype, bool weighted) {
    const LinearCase& c = GetParam();
    const int64_t R = c.num_rows(), N = c.N, K = c.K, T = weighted ? kTokens : R;
    const Tensor offsets = c.Offsets(context_);
    const Tensor rows = weighted ? c.TokensOfRows(context_, T) : Tensor();
    const Tensor exact_offsets = context_.Exact(offsets), exact_rows = context_.Exact(rows);
    const auto normal = [&](DType of, const Shape& shape, const char* name) {
      return Normal(context_, of, shape, name);
    };
    const Values x = normal(dtype, {T, K}, "x"), w = normal(dtype, {c.num_groups(), N, K}, "w");
    const Values gate = normal(dtype, {R, N}, "gate"), y = normal(dtype, {R, N}, "y");
    const Values h = normal(dtype, {R, N}, "h");
    LinearArgs up = {.x = x.exact, .w = w.exact, .offsets = exact_offsets, .y = y.exact};
    up.rows = exact_rows, up.gate = gate.exact, up.h = h.exact;
    Linear(up, host_);
    up.x = x.tensor, up.w = Image(w, WeightFormat::kPacked), up.y = y.tensor;
    up.offsets = offsets, up.rows = rows;
    up.gate = gate.tensor, up.h = h.tensor;
    Linear(up, context_);
    ExpectClose(y.tensor, y.exact, K);
    ExpectClose(h.tensor, h.exact, K, /*roundings=*/2);

    const Values dy = normal(dtype, {T, N}, "dy"), g = normal(dtype, {R, K}, "g");
    const Values u = normal(dtype, {R, K}, "u"), weights = normal(DType::kF32, {R}, "weights");
    const Values dgate = normal(dtype, {R, K}, "dgate"), dup = normal(dtype, {R, K}, "dup");
    const Values of_w = normal(dtype, {R, K}, "of_w");
    const Values dweights = normal(DType::kF32, {R}, "dweights");
    const auto gradient = [&](const Tensor Values::*of, const Tensor& image, const Tensor& offsets,
                              const Tensor& rows, Context& context) {
      LinearSwiGluGradient({.dy = dy.*of,
                            .w = image,
                            .offsets = offsets,
                            .rows = rows,
                            .weights = weighted ? weights.*of : Tensor(),
                            .gate = g.*of,
                            .up = u.*of,
                            .dgate = dgate.*of,
                            .dup = dup.*of,
                            .h = of_w.*of,
                            .dweights = weighted ? dweights.*of : Tensor()},
                           context);
    };
    gradient(&Values::exact, w.exact, exact_offsets, exact_rows, host_);
    gradient(&Values::tensor, Image(w, WeightFormat::kPackedTransposed), offsets, rows, context_);
    ExpectClose(dgate.tensor, dgate.exact, N);
    ExpectClose(dup.tensor, dup.exact, N);
    ExpectClose(of_w.tensor, of_w.exact, 1);
    if (weighted) ExpectClose(dweights.tensor, dweights.exact, N * K);
  }

  test::DeviceContext context_{{.num_threads = 2}};
  Context& host_ = context_.host();
};

TEST_P(LinearEntriesTest, SwiGluAgreesWithDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool weighted : {false, true}) {
      SCOPED_TRACE(testing::Message() << NameOf(dtype) << " weighted " << weighted);
      CheckSwiGlu(dtype, weighted);
    }
  }
}

TEST_P(LinearEntriesTest, ProductsAgreeWithDoublePrecision) {
  for (const auto& [dtype, out] : kDTypes) {
    for (const bool accumulate : {false, true}) {
      for (const bool elsewhere : {false, true}) {
        SCOPED_TRACE(testing::Message() << NameOf(dtype) << " to " << NameOf(out) << " accumulate "
                                        << accumulate << " elsewhere " << elsewhere);
        CheckProducts(dtype, out, accumulate, elsewhere);
      }
    }
  }
}

TEST_P(LinearEntriesTest, SumsAgreeWithDoublePrecision) {
  for (const auto& [dtype, out] : kDTypes) {
    for (const bool accumulate : {false, true}) {
      for (const WeightFormat format : {WeightFormat::kPacked, WeightFormat::kPackedTransposed}) {
        SCOPED_TRACE(testing::Message() << NameOf(dtype) << " to " << NameOf(out) << " accumulate "
                                        << accumulate << " format " << static_cast<int>(format));
        CheckSum(dtype, out, accumulate, format);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearEntriesTest, testing::ValuesIn(test::LinearCases()));

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
  constexpr int64_t kRows = 300, kN = 200, kK = 704;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    test::DeviceContext one({.num_threads = 1}), four({.num_threads = 4});
    const auto x = [&](Context& context) { return RandomTensor(context, dtype, {kRows, kK}, "x"); };
    const auto run = [&](Context& context, int64_t begin, int64_t end) {
      const Tensor w = RandomTensor(context, DType::kF32, {kN, kK}, "w");
      const Tensor image = MakeWeightImage(w, WeightFormat::kPacked, dtype, context);
      const Tensor y = context.Empty(dtype, {end - begin, kN}, "y");
      Linear({.x = x(context).Slice(begin, end), .w = image, .y = y}, context);
      return y;
    };
    const auto gradient = [&](Context& context) {
      const Tensor dy = RandomTensor(context, dtype, {kRows, kN}, "dy");
      const Tensor dw = context.Empty(DType::kF32, {kN, kK}, "dw");
      LinearWeightGradient({.dy = dy, .x = x(context), .dw = dw}, context);
      return dw;
    };
    const Tensor y = run(one, 0, kRows);
    ExpectSameBits(y, run(four, 0, kRows));
    ExpectSameBits(y.Slice(77, 78), run(four, 77, 78));
    ExpectSameBits(gradient(one), gradient(four));
  }
}

TEST(LinearSwiGluGradient, BitsDependOnOperandsAlone) {
  constexpr int64_t kRows = 45, kN = 32, kF = 704;
  test::DeviceContext one({.num_threads = 1}), many({.num_threads = 7});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Shape hidden = {kRows, kF};
    const auto run = [&](Context& context) {
      const auto normal = [&](DType of, const Shape& shape, const char* name) {
        return RandomTensor(context, of, shape, name);
      };
      const Tensor dy = normal(dtype, {kRows, kN}, "dy"), w = normal(DType::kF32, {1, kN, kF}, "w");
      const Tensor gate = normal(dtype, hidden, "gate"), up = normal(dtype, hidden, "up");
      const Tensor weights = normal(DType::kF32, {kRows}, "weights");
      const Tensor offsets = FromValues(context, DType::kI32, {2}, {0, kRows});
      const std::vector<Tensor> results = {
          context.Empty(dtype, hidden, "dgate"), context.Empty(dtype, hidden, "dup"),
          context.Empty(dtype, hidden, "h"), context.Empty(DType::kF32, {kRows}, "dweights")};
      LinearSwiGluGradient(
          {.dy = dy,
           .w = MakeWeightImage(w, WeightFormat::kPackedTransposed, dtype, context),
           .offsets = offsets,
           .weights = weights,
           .gate = gate,
           .up = up,
           .dgate = results[0],
           .dup = results[1],
           .h = results[2],
           .dweights = results[3]},
          context);
      return results;
    };
    const std::vector<Tensor> alone = run(one), together = run(many);
    for (size_t i = 0; i < alone.size(); ++i) ExpectSameBits(alone[i], together[i]);
  }
}

// However threads share the columns and tokens of a sum, and however many columns are computed at
// a time.
TEST(LinearSum, BitsDependOnOperandsAlone) {
  constexpr int64_t kTokens = 300, kWidth = 600, kInputs = 40, kGroups = 3;
  test::DeviceContext one, two({.num_threads = 2, .chunk_elements = 1}), many({.num_threads = 7});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<double> rows, offsets = {0};
    for (int r = 0; r < kGroups * kTokens; ++r) rows.push_back(r % kTokens);
    for (int j = 1; j <= kGroups; ++j) offsets.push_back(static_cast<double>(j * kTokens));
    const auto run = [&](Context& context) {
      const Tensor x = RandomTensor(context, dtype, {kGroups * kTokens, kInputs}, "x");
      const Tensor w = RandomTensor(context, DType::kF32, {kGroups, kWidth, kInputs}, "w");
      const Tensor y = context.Empty(dtype, {kTokens, kWidth}, "y");
      LinearSum({.x = x,
                 .w = MakeWeightImage(w, WeightFormat::kPacked, dtype, context),
                 .format = WeightFormat::kPacked,
                 .offsets = FromValues(context, DType::kI32, {kGroups + 1}, offsets),
                 .rows = FromValues(context, DType::kI32, {kGroups * kTokens}, rows),
                 .y = y},
                context);
      return y;
    };
    const Tensor y = run(one);
    ExpectSameBits(y, run(two));
    ExpectSameBits(y, run(many));
  }
}

// What stands behind the last group is no part of a product: neither its NaN, nor its results.
TEST(Linear, RowsBehindTheLastGroupStay) {
  constexpr int64_t kRows = 75, kCapacity = 115, kN = 64, kK = 128, kGroups = 3;
  test::DeviceContext context({.num_threads = 2});
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    Context& on = context.of(dtype);
    const auto operand = [&](int64_t width, const char* name) {
      std::vector<double> values = test::ToDoubles(RandomTensor(on, dtype, {kRows, width}, name));
      values.resize(kCapacity * width, NAN);
      return FromValues(on, dtype, {kCapacity, width}, values);
    };
    const auto sevens = [&](int64_t width) {
      return FromValues(on, dtype, {kCapacity, width}, std::vector<double>(kCapacity * width, 7));
    };
    const DType master = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const Tensor w = RandomTensor(on, master, {kGroups, kN, kK}, "w");
    const Tensor packed = MakeWeightImage(w, WeightFormat::kPacked, dtype, on);
    const Tensor transposed = MakeWeightImage(w, WeightFormat::kPackedTransposed, dtype, on);
    const Tensor offsets = FromValues(on, DType::kI32, {kGroups + 1}, {0, 5, 5, kRows});
    const Tensor x = operand(kK, "x"), dy = operand(kN, "dy"), gate = operand(kN, "gate");
    const Tensor g = operand(kK, "g"), u = operand(kK, "u");
    const Tensor weights = RandomTensor(on, master, {kCapacity}, "weights");
    const auto run = [&](int64_t rows) {
      const auto part = [&](const Tensor& all) { return all.Slice(0, rows); };
      const std::vector<Tensor> results = {
          sevens(kN),
          sevens(kN),
          sevens(kK),
          sevens(kK),
          sevens(kK),
          sevens(kK),
          FromValues(on, master, {kCapacity}, std::vector<double>(kCapacity, 7))};
      const Tensor dw = on.Empty(master, {kGroups, kN, kK}, "dw");
      LinearArgs up = {.x = part(x), .w = packed, .offsets = offsets, .y = part(results[0])};
      up.gate = part(gate), up.h = part(results[1]);
      Linear(up, on);
      LinearInputGradient(
          {.dy = part(dy), .w = transposed, .offsets = offsets, .dx = part(results[2])}, on);
      LinearSwiGluGradientArgs back{};
      back.dy = part(dy), back.w = transposed, back.offsets = offsets;
      back.gate = part(g), back.up = part(u), back.weights = part(weights);
      back.dgate = part(results[3]), back.dup = part(results[4]), back.h = part(results[5]);
      back.dweights = part(results[6]);
      LinearSwiGluGradient(back, on);
      LinearWeightGradient({.dy = part(dy), .x = part(x), .offsets = offsets, .dw = dw}, on);
      return std::pair(results, dw);
    };
    const auto [exact, exact_dw] = run(kRows);
    const auto [more, more_dw] = run(kCapacity);
    for (size_t i = 0; i < exact.size(); ++i) ExpectSameBits(exact[i], more[i]);
    ExpectSameBits(exact_dw, more_dw);
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
  test::DeviceContext context;
  const Tensor w = context.Zeros(DType::kF32, {32, 8}, "w");
  const LinearArgs args = {.x = context.Zeros(DType::kF32, {2, 9}, "x"),
                           .w = MakeWeightImage(w, WeightFormat::kPacked, DType::kF32, context),
                           .y = context.Zeros(DType::kF32, {2, 32}, "y")};
  EXPECT_DEATH(Linear(args, context), "image");
}

TEST(ResidentWeights, RebuildsAnImageAfterAnUpdate) {
  test::DeviceContext context;
  Parameter w;
  w.value = Normal(context, DType::kF32, {3, 4}, "w").tensor;
  ResidentWeights weights(context);
  EXPECT_EQ(weights.Lease(w, WeightFormat::kPlain, DType::kF32).address(), w.value.address());
  const Tensor before = weights.Lease(w, WeightFormat::kPlain, DType::kBF16);
  ExpectSameBits(before, test::Convert(context, w.value, DType::kBF16));
  Copy(FromValues(context, DType::kF32, {3, 4}, std::vector<double>(12, 7)), w.value);
  EXPECT_NE(test::ToDoubles(weights.Lease(w, WeightFormat::kPlain, DType::kBF16))[5], 7);
  ++w.version;
  const Tensor after = weights.Lease(w, WeightFormat::kPlain, DType::kBF16);
  EXPECT_EQ(test::ToDoubles(after)[5], 7);
  EXPECT_EQ(after.address(), before.address());

  Context host;
  ResidentWeights exact_weights(host);
  Parameter exact;
  exact.value = host.Zeros(DType::kF64, {3, 4}, "w");
  EXPECT_EQ(exact_weights.Lease(exact, WeightFormat::kPacked, DType::kF64).address(),
            exact.value.address());
}

}  // namespace
}  // namespace moebius::kernels
