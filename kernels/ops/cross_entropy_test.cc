#include "kernels/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include "kernels/weight_images.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::ops {
namespace {

using test::Outputs;
using test::RandomTensor;
using Vars = std::vector<Var>;

struct Batch {
  Tensor x, labels, weights;
};

Batch MakeBatch(Context& ctx, DType dtype, int64_t T, int64_t D, int64_t V) {
  const Batch batch = {RandomTensor(ctx, dtype, {T, D}, "x"),
                       test::RandomInts(ctx, {T}, V, "labels"),
                       RandomTensor(ctx, DType::kF32, {T}, "weights")};
  if (T > 1) {  // padding
    batch.labels.data<int32_t>()[1] = -1;
    batch.weights.data<float>()[1] = 0;
  }
  return batch;
}

TEST(CrossEntropyLoss, Gradients) {
  Context ctx;
  for (const int64_t T : {5, 0}) {
    const Batch batch = MakeBatch(ctx, DType::kF64, T, 3, 7);
    const Tensor weights = test::Convert(ctx, batch.weights, DType::kF64);
    Parameter head = test::MakeParameter(ctx, RandomTensor(ctx, DType::kF64, {7, 3}, "head"));
    const auto fn = [&](Tape& tape, const Vars& in) {
      return Outputs{.losses = {{CrossEntropyLoss(tape, in[0], &head, batch.labels, weights), 1}}};
    };
    test::CheckGradients(ctx, fn, {batch.x}, {&head});
  }
}

struct Results {
  Tensor loss, dx, dhead;
};

Results Train(Context& ctx, const Batch& batch, const Tensor& head) {
  Parameter parameter = test::MakeParameter(ctx, head);
  kernels::ResidentWeights weights(ctx);
  Tape tape(ctx, weights);
  const Var x = tape.Input(batch.x);
  const Tensor loss = CrossEntropyLoss(tape, x, &parameter, batch.labels, batch.weights);
  tape.Backward();
  return {loss, tape.LeafGradient(x.id()), parameter.gradient};
}

// Several chunks: 64 tokens each at this vocabulary.
TEST(CrossEntropyLoss, AgreesWithTheReferenceOverChunks) {
  Context ctx({.num_threads = 2});
  constexpr int64_t T = 70, D = 4, V = 33000;
  const Tensor head = RandomTensor(ctx, DType::kF32, {V, D}, "head", 0.2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    // In bf16 the product reads the head rounded.
    const Tensor rounded = test::Convert(ctx, test::Convert(ctx, head, dtype), DType::kF32);
    const Batch batch = MakeBatch(ctx, dtype, T, D, V);
    const Batch exact_batch = {test::Convert(ctx, batch.x, DType::kF64), batch.labels,
                               test::Convert(ctx, batch.weights, DType::kF64)};
    const Results actual = Train(ctx, batch, rounded);
    const Results exact = Train(ctx, exact_batch, test::Convert(ctx, rounded, DType::kF64));
    test::ExpectClose(test::Convert(ctx, actual.loss, DType::kF32), exact.loss, V);
    // The gradients of the logits are rounded to `dtype` before they are added up.
    test::ExpectClose(actual.dx, exact.dx, V, 2);
    test::ExpectClose(test::Convert(ctx, actual.dhead, dtype), exact.dhead, T, 2);
  }
}

TEST(CrossEntropyLoss, EvaluationAgreesWithTraining) {
  Context ctx({.num_threads = 2});
  for (const int64_t T : {9, 0}) {
    const Batch batch = MakeBatch(ctx, DType::kF32, T, 8, 50);
    Parameter head = test::MakeParameter(ctx, RandomTensor(ctx, DType::kF32, {50, 8}, "head"));
    kernels::ResidentWeights weights(ctx);
    Tape tape(ctx, weights, Tape::Mode::kForwardOnly);
    const Var x = tape.Input(batch.x);
    const Tensor loss = CrossEntropyLoss(tape, x, &head, batch.labels, batch.weights);
    test::ExpectSameBits(loss, Train(ctx, batch, head.value).loss);
    EXPECT_FALSE(head.gradient_written);

    double sum = 0;
    for (const double nll : TokenLosses(tape, x, &head, batch.labels, batch.weights).span<double>())
      sum += nll;
    EXPECT_DOUBLE_EQ(sum, loss.data<double>()[0]);
  }
}

}  // namespace
}  // namespace moebius::ops
