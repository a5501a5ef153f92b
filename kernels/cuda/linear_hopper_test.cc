// Which products run on tensor cores, and how many instructions they take. Their numbers are those
// of kernels/linear_entries_test.cc on the emulated GPU.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <vector>

#include "kernels/cuda/accelerator.h"
#include "kernels/cuda/emulation/hopper.h"
#include "kernels/linear.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::cuda {
namespace {

// Of a 64 deep slice of a tile: two warpgroups, 16 of the depth at a time.
constexpr int64_t kOfSlice = 2 * 4;

class LinearHopperTest : public testing::Test {
 protected:
  // 0, 1 and 129 rows of three groups; tiles of 0, 1 and 2 x 128 rows.
  static constexpr int64_t kRows = 130, kGroups = 3, kTokens = 140;

  int64_t Instructions(const std::function<void()>& run) {
    context_.accelerator()->Wait();
    const int64_t before = cuda_emulation::NumProducts();
    run();
    context_.accelerator()->Wait();
    return cuda_emulation::NumProducts() - before;
  }

  Tensor Zeros(DType dtype, const Shape& shape) { return context_.Zeros(dtype, shape, "zeros"); }
  Tensor Offsets() {
    return test::FromValues(context_, DType::kI32, {kGroups + 1}, {0, 0, 1, kRows});
  }
  Tensor Rows() {
    std::vector<double> rows(kRows);
    std::iota(rows.begin(), rows.end(), 0);
    return test::FromValues(context_, DType::kI32, {kRows}, rows);
  }
  Tensor OnDevice(const test::Values& values) {
    return test::Convert(context_, values.tensor, values.tensor.dtype());
  }

  int64_t OfLinear(DType dtype, int64_t N, int64_t K) {
    const kernels::LinearArgs args = {.x = Zeros(dtype, {kTokens, K}),
                                      .w = Zeros(dtype, {kGroups, N, K}),
                                      .offsets = Offsets(),
                                      .y = Zeros(dtype, {kRows, N}),
                                      .rows = Rows()};
    return Instructions([&] { kernels::Linear(args, context_); });
  }
  int64_t OfWeightGradient(DType dtype, int64_t N, int64_t K) {
    const kernels::LinearWeightGradientArgs args = {.dy = Zeros(dtype, {kTokens, N}),
                                                    .x = Zeros(dtype, {kRows, K}),
                                                    .offsets = Offsets(),
                                                    .dw = Zeros(DType::kF32, {kGroups, N, K}),
                                                    .dy_rows = Rows()};
    return Instructions([&] { kernels::LinearWeightGradient(args, context_); });
  }

  Context host_;
  Context context_{{.device = {DeviceKind::kCuda, 0}, .accelerator = OpenDevice(0)}};
};

// The emulated chip has three SMs, which four rows of tiles at most keep busy: 256 columns a tile,
// but 128 where that is less work.
TEST_F(LinearHopperTest, LinearTakesTilesOfItsRowsAlone) {
  EXPECT_EQ(OfLinear(DType::kBF16, 392, 72), 3 * 2 * 2 * kOfSlice);
  EXPECT_EQ(OfLinear(DType::kBF16, 264, 72), 3 * 3 * 2 * kOfSlice);
  EXPECT_EQ(OfLinear(DType::kBF16, 8, 8), 3 * 1 * 1 * kOfSlice);
}

TEST_F(LinearHopperTest, WeightGradientsTakeSlicesOfTheirRows) {
  EXPECT_EQ(OfWeightGradient(DType::kBF16, 136, 392), 2 * 2 * (1 + 3) * kOfSlice);
  EXPECT_EQ(OfWeightGradient(DType::kBF16, 8, 8), (1 + 3) * kOfSlice);
}

// One tile for three SMs: two parts of 1050 rows, and their sum.
TEST_F(LinearHopperTest, WeightGradientsOfFewTilesAreSharedByRows) {
  constexpr int64_t kManyRows = 2100;
  const test::Values dy = test::Normal(host_, DType::kBF16, {kManyRows, 16}, "dy");
  const test::Values x = test::Normal(host_, DType::kBF16, {kManyRows, 8}, "x");
  for (const bool accumulate : {false, true}) {
    const test::Values dw = test::Normal(host_, DType::kF32, {16, 8}, "dw");
    const Tensor of_dy = OnDevice(dy), of_x = OnDevice(x), of_dw = OnDevice(dw);
    kernels::LinearWeightGradient(
        {.dy = dy.exact, .x = x.exact, .dw = dw.exact, .accumulate = accumulate}, host_);
    EXPECT_EQ(Instructions([&] {
                kernels::LinearWeightGradient(
                    {.dy = of_dy, .x = of_x, .dw = of_dw, .accumulate = accumulate}, context_);
              }),
              2 * 17 * kOfSlice);
    test::ExpectClose(of_dw, dw.exact, kManyRows);
  }
}

TEST_F(LinearHopperTest, EveryProductOfAnExpertIsOnTensorCores) {
  const Tensor offsets = Offsets(), rows = Rows();
  const Tensor tokens = Zeros(DType::kBF16, {kTokens, 64}),
               hidden = Zeros(DType::kBF16, {kRows, 32});
  const Tensor up = Zeros(DType::kBF16, {kGroups, 32, 64}),
               down = Zeros(DType::kBF16, {kGroups, 64, 32});
  const Tensor of_rows = Zeros(DType::kBF16, {kRows, 64});
  const auto counts = [&](const std::function<void()>& run) {
    EXPECT_EQ(Instructions(run), 3 * kOfSlice);
  };
  counts([&] {
    kernels::Linear({.x = tokens,
                     .w = up,
                     .offsets = offsets,
                     .y = hidden,
                     .rows = rows,
                     .gate = hidden,
                     .h = Zeros(DType::kBF16, {kRows, 32})},
                    context_);
  });
  counts([&] {
    kernels::LinearSum({.x = hidden,
                        .w = down,
                        .format = WeightFormat::kPacked,
                        .offsets = offsets,
                        .rows = rows,
                        .y = tokens},
                       context_);
  });
  counts([&] {
    kernels::LinearSum({.x = hidden,
                        .w = up,
                        .format = WeightFormat::kPackedTransposed,
                        .offsets = offsets,
                        .rows = rows,
                        .y = tokens},
                       context_);
  });
  counts([&] {
    kernels::LinearInputGradient({.dy = hidden, .w = up, .offsets = offsets, .dx = of_rows},
                                 context_);
  });
  counts([&] {
    kernels::LinearSwiGluGradient({.dy = tokens,
                                   .w = down,
                                   .offsets = offsets,
                                   .rows = rows,
                                   .gate = hidden,
                                   .up = hidden,
                                   .dgate = Zeros(DType::kBF16, {kRows, 32}),
                                   .dup = Zeros(DType::kBF16, {kRows, 32}),
                                   .h = Zeros(DType::kBF16, {kRows, 32})},
                                  context_);
  });
}

// Many rows take wide tiles, few take narrow ones.
TEST_F(LinearHopperTest, BitsOfARowDoNotDependOnTheTile) {
  constexpr int64_t kMany = 390, kFew = 5, kOutputs = 64, kF = 392;
  const auto normal = [&](DType dtype, const Shape& shape, const char* name) {
    return test::RandomTensor(context_, dtype, shape, name);
  };
  const Tensor dy = normal(DType::kBF16, {kMany, kOutputs}, "dy");
  const Tensor w = normal(DType::kBF16, {1, kOutputs, kF}, "w");
  const Tensor gate = normal(DType::kBF16, {kMany, kF}, "gate");
  const Tensor up = normal(DType::kBF16, {kMany, kF}, "up");
  const Tensor weights = normal(DType::kF32, {kMany}, "weights");
  const auto run = [&](int32_t rows) {
    const Tensor offsets = test::FromValues(context_, DType::kI32, {2}, {0.0, 1.0 * rows});
    const std::vector<Tensor> results = {
        Zeros(DType::kBF16, {rows, kF}), Zeros(DType::kBF16, {rows, kF}),
        Zeros(DType::kBF16, {rows, kF}), Zeros(DType::kF32, {rows})};
    kernels::LinearSwiGluGradient({.dy = dy.Slice(0, rows),
                                   .w = w,
                                   .offsets = offsets,
                                   .weights = weights.Slice(0, rows),
                                   .gate = gate.Slice(0, rows),
                                   .up = up.Slice(0, rows),
                                   .dgate = results[0],
                                   .dup = results[1],
                                   .h = results[2],
                                   .dweights = results[3]},
                                  context_);
    return results;
  };
  const std::vector<Tensor> many = run(kMany), few = run(kFew);
  for (size_t i = 0; i < many.size(); ++i) test::ExpectSameBits(many[i].Slice(0, kFew), few[i]);
}

TEST_F(LinearHopperTest, OtherProductsAreNot) {
  EXPECT_EQ(OfLinear(DType::kF32, 64, 64), 0);
  EXPECT_EQ(OfLinear(DType::kBF16, 60, 64), 0);
  EXPECT_EQ(OfLinear(DType::kBF16, 64, 60), 0);
  EXPECT_EQ(OfWeightGradient(DType::kF32, 64, 64), 0);
  EXPECT_EQ(OfWeightGradient(DType::kBF16, 60, 64), 0);
  EXPECT_EQ(OfWeightGradient(DType::kBF16, 64, 60), 0);
}

}  // namespace
}  // namespace moebius::cuda
