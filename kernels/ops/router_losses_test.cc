#include "kernels/ops/router_losses.h"

#include <gtest/gtest.h>

#include "kernels/ops/activations.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius::ops {
namespace {

using test::Outputs;
using Vars = std::vector<Var>;

constexpr double kCoefficient = 0.25;

class RouterLossesTest : public testing::Test {
 protected:
  Tensor Random(const Shape& shape, const char* name) {
    return test::RandomTensor(ctx_, DType::kF64, shape, name);
  }

  Context ctx_;
};

TEST_F(RouterLossesTest, BalanceLossOfSoftmaxAndOfNormalizedSigmoid) {
  for (const bool sigmoid : {false, true}) {
    for (const int64_t T : {4, 0}) {
      const Tensor ids =
          T == 0 ? Tensor() : test::FromValues(ctx_, DType::kI32, {T}, {0, -1, 0, 3});
      const auto fn = [&](Tape& tape, const Vars& in) {
        const Var scores = sigmoid ? Sigmoid(tape, in[0]) : Softmax(tape, in[0]);
        const Tensor value = BalanceLoss(tape, scores,
                                         {.fractions = Random({2, 3}, "f"),
                                          .document_ids = ids,
                                          .tokens_per_group = 2,
                                          .normalize_scores = sigmoid,
                                          .divisor = 7},
                                         kCoefficient);
        return Outputs{.losses = {{value, kCoefficient}}};
      };
      test::CheckGradients(ctx_, fn, {Random({T, 3}, "z")});
    }
  }
}

TEST_F(RouterLossesTest, ZLossBesideAnotherUseOfTheLogits) {
  const auto fn = [&](Tape& tape, const Vars& in) {
    const Tensor value = ZLoss(tape, in[0], {.divisor = 7}, kCoefficient);
    return Outputs{.values = {Softmax(tape, in[0])}, .losses = {{value, kCoefficient}}};
  };
  for (const int64_t T : {4, 0}) test::CheckGradients(ctx_, fn, {Random({T, 3}, "z")});
}

}  // namespace
}  // namespace moebius::ops
