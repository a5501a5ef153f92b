// On the meta device every op runs its shapes, saves and allocations, forward and backward.
#include <gtest/gtest.h>

#include "kernels/ops/activations.h"
#include "kernels/ops/columns.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/router_losses.h"
#include "kernels/ops/routing.h"
#include "kernels/weight_images.h"
#include "tests/testing/gradient_check.h"

namespace moebius::ops {
namespace {

TEST(Meta, OpsRunWithoutBytes) {
  Context ctx({.device = kMeta});
  constexpr int64_t T = 12, D = 8, E = 6, V = 32;
  const auto empty = [&](DType dtype, const Shape& shape) {
    return ctx.Empty(dtype, shape, "test");
  };
  Parameter table = test::MakeParameter(ctx, empty(DType::kF32, {V, D}));
  Parameter norm = test::MakeParameter(ctx, empty(DType::kF32, {D}));
  const Tensor ids = empty(DType::kI32, {T}), weights = empty(DType::kF32, {T});

  kernels::ResidentWeights source(ctx);
  Tape tape(ctx, source);
  const Var x = RmsNorm(tape, Embedding(tape, ids, &table, DType::kBF16), &norm, 1e-5);
  const Var logits = Columns(tape, Cast(tape, Rotary(tape, x, ids, 4, 1e4), DType::kF32), 1, 1 + E);
  const Var scores = Softmax(tape, Sigmoid(tape, logits));
  const RoutingPlan plan =
      kernels::TopK({.scores = scores.value(), .k = 3, .document_ids = ids}, ctx);
  const Var rows = Permute(tape, x, plan);
  const Var y =
      Combine(tape, SwiGlu(tape, rows, rows), PairWeights(tape, scores, plan, true, 1), plan);
  EXPECT_EQ(y.shape(), x.shape());
  (void)BalanceLoss(tape, scores,
                    {.fractions = empty(DType::kF32, {1, E}), .tokens_per_group = T, .divisor = 1},
                    1);
  (void)ZLoss(tape, logits, {.divisor = 1}, 1);
  const Tensor loss = CrossEntropyLoss(tape, Add(tape, x, y), &table, ids, weights);
  EXPECT_EQ(loss.shape(), (Shape{1}));

  tape.Backward();
  for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
  EXPECT_TRUE(table.gradient_written && norm.gradient_written);
  EXPECT_GT(ctx.arena().total().peak_bytes, 0);
}

}  // namespace
}  // namespace moebius::ops
