// Gradient checks of the ops that stand alone.
#include <gtest/gtest.h>

#include "kernels/ops/activations.h"
#include "kernels/ops/columns.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius::ops {
namespace {

using test::Outputs;
using Vars = std::vector<Var>;

class OpsTest : public testing::Test {
 protected:
  Tensor Random(const Shape& shape, const char* name) {
    return test::RandomTensor(ctx_, DType::kF64, shape, name);
  }

  Context ctx_;
};

TEST_F(OpsTest, RmsNorm) {
  Parameter w = test::MakeParameter(ctx_, Random({3}, "w"));
  for (const int64_t T : {4, 0}) {
    const auto fn = [&](Tape& tape, const Vars& in) {
      return Outputs{.values = {RmsNorm(tape, in[0], &w, 1e-3)}};
    };
    test::CheckGradients(ctx_, fn, {Random({T, 6}, "x")}, {&w});
  }
}

TEST_F(OpsTest, Rotary) {
  for (const int64_t T : {3, 0}) {
    const Tensor positions = test::RandomInts(ctx_, {T}, 100, "positions");
    const auto fn = [&](Tape& tape, const Vars& in) {
      return Outputs{.values = {Rotary(tape, in[0], positions, 4, 10000)}};
    };
    test::CheckGradients(ctx_, fn, {Random({T, 8}, "x")});
  }
}

TEST_F(OpsTest, SwiGlu) {
  const auto fn = [](Tape& tape, const Vars& in) {
    return Outputs{.values = {SwiGlu(tape, in[0], in[1])}};
  };
  for (const int64_t R : {3, 0})
    test::CheckGradients(ctx_, fn, {Random({R, 5}, "gate"), Random({R, 5}, "up")});
}

TEST_F(OpsTest, SoftmaxAndSigmoid) {
  const auto softmax = [](Tape& tape, const Vars& in) {
    return Outputs{.values = {Softmax(tape, in[0])}};
  };
  const auto sigmoid = [](Tape& tape, const Vars& in) {
    return Outputs{.values = {Sigmoid(tape, in[0])}};
  };
  for (const int64_t T : {3, 0}) {
    test::CheckGradients(ctx_, softmax, {Random({T, 4}, "z")});
    test::CheckGradients(ctx_, sigmoid, {Random({T, 4}, "z")});
  }
}

TEST_F(OpsTest, AddAlsoToItself) {
  const auto fn = [](Tape& tape, const Vars& in) {
    return Outputs{.values = {Add(tape, Add(tape, in[0], in[1]), in[0])}};
  };
  test::CheckGradients(ctx_, fn, {Random({2, 3}, "a"), Random({2, 3}, "b")});
}

TEST_F(OpsTest, ColumnsThatOverlap) {
  const auto fn = [](Tape& tape, const Vars& in) {
    return Outputs{.values = {Columns(tape, in[0], 1, 4), Columns(tape, in[0], 3, 6)}};
  };
  for (const int64_t T : {3, 0}) test::CheckGradients(ctx_, fn, {Random({T, 6}, "x")});
  test::ValueWeights weights;
  Tape tape(ctx_, weights);
  const Var x = tape.Input(Random({2, 6}, "x"));
  EXPECT_EQ(Columns(tape, x, 0, 6).id().index, x.id().index) << "all columns are the tensor";
}

TEST_F(OpsTest, EmbeddingWithRepeatedTokens) {
  Parameter w = test::MakeParameter(ctx_, Random({5, 3}, "w"));
  for (const auto& values : {std::vector<double>{4, 1, 4, 4, 0, 1}, std::vector<double>{}}) {
    const Tensor tokens =
        test::FromValues(ctx_, DType::kI32, {static_cast<int64_t>(values.size())}, values);
    const auto fn = [&](Tape& tape, const Vars&) {
      return Outputs{.values = {Embedding(tape, tokens, &w, DType::kF64)}};
    };
    test::CheckGradients(ctx_, fn, {}, {&w});
  }
}

TEST_F(OpsTest, CastTurnsTheGradientBack) {
  test::ValueWeights weights;
  Tape tape(ctx_, weights);
  const Var x = tape.Input(test::FromValues(ctx_, DType::kF32, {2}, {1.00390625, -3}));
  const Var y = Cast(tape, x, DType::kBF16);
  EXPECT_EQ(test::ToDoubles(y.value()), (std::vector<double>{1, -3}));  // ties to even
  EXPECT_EQ(Cast(tape, y, DType::kBF16).id().index, y.id().index);
  const Tape::Seed seed = {y.id(), test::FromValues(ctx_, DType::kBF16, {2}, {0.5, 2})};
  tape.Backward({&seed, 1});
  EXPECT_EQ(tape.LeafGradient(x.id()).dtype(), DType::kF32);
  EXPECT_EQ(test::ToDoubles(tape.LeafGradient(x.id())), (std::vector<double>{0.5, 2}));
}

}  // namespace
}  // namespace moebius::ops
