// Products large enough for every kind of tile of a large GPU, on any device
// (tests/testing/device_context.h).
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "kernels/linear.h"
#include "kernels/weight_images.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

// A GPU takes other tiles for many rows and columns than for few: these are enough for 132 of 128 x
// 256, and deep enough to go around their ring of stages.
TEST(Linear, BitsOfManyRowsAreThoseOfFew) {
  constexpr int64_t kRows = 1100, kOutputs = 3840, kInputs = 264;
  constexpr DType kBF16 = DType::kBF16;
  test::DeviceContext context({.num_threads = 2});
  const auto normal = [&](DType dtype, const Shape& shape, const char* name) {
    return test::RandomTensor(context, dtype, shape, name);
  };
  const Tensor x = normal(kBF16, {kRows, kInputs}, "x");
  const Tensor gate = normal(kBF16, {kRows, kOutputs}, "gate"), up = gate;
  const Tensor weights = normal(DType::kF32, {kRows}, "weights");
  const Tensor w = MakeWeightImage(normal(DType::kF32, {kOutputs, kInputs}, "w"),
                                   WeightFormat::kPacked, kBF16, context);
  const Tensor w_transposed = MakeWeightImage(normal(DType::kF32, {1, kInputs, kOutputs}, "w"),
                                              WeightFormat::kPackedTransposed, kBF16, context);
  const auto run = [&](int32_t begin, int32_t end) {
    const auto part = [&](const Tensor& whole) { return whole.Slice(begin, end); };
    const auto result = [&] { return context.Empty(kBF16, {end - begin, kOutputs}, "result"); };
    const Tensor offsets =
        test::FromValues(context, DType::kI32, {2}, {0.0, static_cast<double>(end - begin)});
    const std::vector<Tensor> results = {
        result(), result(), result(),
        result(), result(), context.Empty(DType::kF32, {end - begin}, "dweights")};
    Linear({.x = part(x), .w = w, .y = results[0], .gate = part(gate), .h = results[1]}, context);
    LinearSwiGluGradient({.dy = part(x),
                          .w = w_transposed,
                          .offsets = offsets,
                          .weights = part(weights),
                          .gate = part(gate),
                          .up = part(up),
                          .dgate = results[2],
                          .dup = results[3],
                          .h = results[4],
                          .dweights = results[5]},
                         context);
    return results;
  };
  const std::vector<Tensor> many = run(0, kRows);
  for (const auto& [begin, end] : {std::pair(0, 3), std::pair(500, 700), std::pair(1099, 1100)}) {
    const std::vector<Tensor> few = run(begin, end);
    for (size_t i = 0; i < many.size(); ++i)
      test::ExpectSameBits(many[i].Slice(begin, end), few[i]);
  }
}

TEST(LinearWeightGradient, BitsOfManyGroupsAreThoseOfOne) {
  constexpr int64_t kGroups = 136, kRowsOfGroup = 264, kTokens = 400, kN = 128, kK = 256;
  test::DeviceContext context({.num_threads = 2});
  const Tensor dy = test::RandomTensor(context, DType::kBF16, {kTokens, kN}, "dy");
  const Tensor x = test::RandomTensor(context, DType::kBF16, {kTokens, kK}, "x");
  const Tensor rows = test::RandomInts(context, {kGroups * kRowsOfGroup}, kTokens, "rows");
  const auto run = [&](int64_t begin, int64_t end) {
    std::vector<double> first_rows;
    for (int64_t j = 0; j <= end - begin; ++j) {
      first_rows.push_back(static_cast<double>(j * kRowsOfGroup));
    }
    const Tensor offsets = test::FromValues(context, DType::kI32, {end - begin + 1}, first_rows);
    const Tensor of = rows.Slice(begin * kRowsOfGroup, end * kRowsOfGroup);
    const Tensor dw = context.Empty(DType::kF32, {end - begin, kN, kK}, "dw");
    LinearWeightGradient(
        {.dy = dy, .x = x, .offsets = offsets, .dw = dw, .dy_rows = of, .x_rows = of}, context);
    return dw;
  };
  const Tensor dw = run(0, kGroups);
  for (const int64_t j : {0, 77, 135}) test::ExpectSameBits(dw.Slice(j, j + 1), run(j, j + 1));
}

}  // namespace
}  // namespace moebius::kernels
