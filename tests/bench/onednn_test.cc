// What is timed beside our products computes the same.
#include "tests/bench/onednn.h"

#include <gtest/gtest.h>

#include "kernels/linear.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

using test::ExpectClose;
using test::RandomTensor;

constexpr int64_t kR = 37, kN = 70, kK = 96;

class OneDnnTest : public testing::TestWithParam<DType> {
 protected:
  Tensor Exact(const Tensor& x) { return test::Convert(context_, x, DType::kF64); }
  // A weight is F32, and what products read is rounded to their dtype.
  Tensor Weight() {
    const Tensor rounded = RandomTensor(context_, GetParam(), {kN, kK}, "w");
    return test::Convert(context_, rounded, DType::kF32);
  }

  Context context_;
};

TEST_P(OneDnnTest, Forward) {
  const Tensor x = RandomTensor(context_, GetParam(), {kR, kK}, "x"), w = Weight();
  const Tensor y = context_.Zeros(GetParam(), {kR, kN}, "y"), exact = Exact(y);
  kernels::Linear({.x = Exact(x), .w = Exact(w), .y = exact}, context_);
  OneDnnProduct::Forward(x, w, y, context_).Run();
  ExpectClose(y, exact, kK);
}

TEST_P(OneDnnTest, InputGradient) {
  const Tensor dy = RandomTensor(context_, GetParam(), {kR, kN}, "dy"), w = Weight();
  const Tensor dx = context_.Zeros(GetParam(), {kR, kK}, "dx"), exact = Exact(dx);
  kernels::LinearInputGradient({.dy = Exact(dy), .w = Exact(w), .dx = exact}, context_);
  OneDnnProduct::InputGradient(dy, w, dx, context_).Run();
  ExpectClose(dx, exact, kN);
}

TEST_P(OneDnnTest, WeightGradient) {
  const Tensor x = RandomTensor(context_, GetParam(), {kR, kK}, "x");
  const Tensor dy = RandomTensor(context_, GetParam(), {kR, kN}, "dy");
  const Tensor dw = context_.Zeros(DType::kF32, {kN, kK}, "dw"), exact = Exact(dw);
  kernels::LinearWeightGradient({.dy = Exact(dy), .x = Exact(x), .dw = exact}, context_);
  OneDnnProduct::WeightGradient(dy, x, dw, context_).Run();
  ExpectClose(dw, exact, kR);
}

INSTANTIATE_TEST_SUITE_P(DTypes, OneDnnTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace moebius
