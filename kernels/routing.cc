#include "kernels/routing.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckScores(const Tensor& scores, const RoutingPlan& plan, const Tensor& weights) {
  CHECK_EQ(scores.shape(), (Shape{plan.num_tokens(), plan.num_experts()}));
  CHECK_EQ(weights.shape(), (Shape{plan.num_pairs()}));
  CheckDType(scores, PreciseDType(scores.dtype()));
  CheckDType(weights, scores.dtype());
}

// x [T, D] and rows [P, D] of one dtype.
void CheckRows(const Tensor& x, const RoutingPlan& plan, const Tensor& rows) {
  const auto [T, D] = Dims<2>(x);
  CHECK_EQ(T, plan.num_tokens()) << "the plan of another batch";
  CHECK_EQ(rows.shape(), (Shape{plan.num_pairs(), D}));
  CHECK(IsFloat(x.dtype())) << NameOf(x.dtype());
  CheckDType(rows, x.dtype());
}

void CheckWeights(const Tensor& weights, const RoutingPlan& plan, const Tensor& rows) {
  CHECK_EQ(weights.shape(), (Shape{plan.num_pairs()}));
  CheckDType(weights, PreciseDType(rows.dtype()));
}

}  // namespace

void PairWeights(const PairWeightsArgs& args, Context& ctx) {
  CheckScores(args.scores, args.plan, args.weights);
  const OpScope op = ctx.Start(Moves("pair_weights", args.scores, args.weights));
  if (op.is_dry()) return;
  BackendFor(args.scores.dtype(), ctx).pair_weights(args, ctx);
}

void PairWeightsGradient(const PairWeightsGradientArgs& args, Context& ctx) {
  CheckScores(args.scores, args.plan, args.dweights);
  CheckAlike(args.scores, args.dscores);
  const OpScope op =
      ctx.Start(Moves("pair_weights.gradient", args.scores, args.dscores, args.dweights));
  if (op.is_dry()) return;
  BackendFor(args.scores.dtype(), ctx).pair_weights_gradient(args, ctx);
}

void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx) {
  CheckRows(x, plan, rows);
  const OpScope op = ctx.Start(Moves("permute", rows, rows));
  if (op.is_dry()) return;
  BackendFor(x.dtype(), ctx).permute(x, plan, rows, ctx);
}

void PermuteGradient(const PermuteGradientArgs& args, Context& ctx) {
  CheckRows(args.dx, args.plan, args.drows);
  const OpScope op = ctx.Start(Moves("permute.gradient", args.drows, args.dx));
  if (op.is_dry()) return;
  BackendFor(args.dx.dtype(), ctx).permute_gradient(args, ctx);
}

void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx) {
  CheckRows(y, plan, rows);
  CheckWeights(weights, plan, rows);
  const OpScope op = ctx.Start(Moves("combine", rows, y));
  if (op.is_dry()) return;
  BackendFor(rows.dtype(), ctx).combine(rows, weights, plan, y, ctx);
}

void CombineGradient(const CombineGradientArgs& args, Context& ctx) {
  CheckRows(args.dy, args.plan, args.rows);
  CheckAlike(args.rows, args.drows);
  CheckWeights(args.weights, args.plan, args.rows);
  CheckAlike(args.weights, args.dweights);
  const OpScope op = ctx.Start(Moves("combine.gradient", args.dy, args.rows, args.drows));
  if (op.is_dry()) return;
  BackendFor(args.dy.dtype(), ctx).combine_gradient(args, ctx);
}

void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context& ctx) {
  CheckWeights(weights, plan, weights);
  CheckAlike(weights, y);
  const OpScope op = ctx.Start(Moves("weights_by_row", weights, y));
  if (op.is_dry()) return;
  BackendFor(y.dtype(), ctx).weights_by_row(weights, plan, y, ctx);
}

void WeightsByRowGradient(const WeightsByRowGradientArgs& args, Context& ctx) {
  CheckWeights(args.dweights, args.plan, args.dweights);
  CheckAlike(args.dweights, args.dy);
  const OpScope op = ctx.Start(Moves("weights_by_row.gradient", args.dy, args.dweights));
  if (op.is_dry()) return;
  BackendFor(args.dy.dtype(), ctx).weights_by_row_gradient(args, ctx);
}

}  // namespace moebius::kernels
