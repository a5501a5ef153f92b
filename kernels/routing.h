// What moves by a routing plan: the weights of its pairs, and rows to the grouped order and back.
// Letters: T tokens, E experts, P pairs, D width.
#pragma once

#include "core/tensor/context.h"
#include "kernels/routing_plan.h"

namespace moebius::kernels {

// weights[p] = scale * scores[t, expert[p]], and where `renormalize`, divided by the sum of the
// token's chosen scores + 1e-20. scores [T, E], weights [P], F64 | F32.
struct PairWeightsArgs {
  Tensor scores;
  const RoutingPlan& plan;
  bool renormalize;
  double scale;
  Tensor weights;
};
void PairWeights(const PairWeightsArgs& args, Context& ctx);

struct PairWeightsGradientArgs {
  Tensor scores;
  const RoutingPlan& plan;
  bool renormalize;
  double scale;
  Tensor dweights;  // [P]
  Tensor dscores;   // [T, E]
  bool accumulate;
};
void PairWeightsGradient(const PairWeightsGradientArgs& args, Context& ctx);

// rows[row[p], :] = x[t, :].  x [T, D], rows [P, D], one dtype.
void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx);

// dx[t, :] = sum over pairs p of t of drows[row[p], :]
struct PermuteGradientArgs {
  Tensor drows;
  const RoutingPlan& plan;
  Tensor dx;
  bool accumulate;
};
void PermuteGradient(const PermuteGradientArgs& args, Context& ctx);

// y[t, :] = sum over pairs p of t of weights[p] * rows[row[p], :]
// rows [P, D], y [T, D] F64 | F32 | BF16; weights [P] F32 (F64 where rows are F64).
void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx);

struct CombineGradientArgs {
  Tensor dy, rows, weights;
  const RoutingPlan& plan;
  Tensor drows;
  bool accumulate_drows;
  Tensor dweights;
  bool accumulate_dweights;
};
void CombineGradient(const CombineGradientArgs& args, Context& ctx);

// Where a product adds up weighted rows (LinearSum), what is left to do row by row.
// y[row[p]] = weights[p].  weights, y [P] F64 | F32.
void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context& ctx);

// dweights[p] (+)= dy[row[p]]
struct WeightsByRowGradientArgs {
  Tensor dy;
  const RoutingPlan& plan;
  Tensor dweights;
  bool accumulate;
};
void WeightsByRowGradient(const WeightsByRowGradientArgs& args, Context& ctx);

// Of weights[r] * x[r, :] by x and weights: dx[r, :] (+)= weights[r] * dy[r, :] and dweights[r] =
// x[r, :] dy[r, :]; and the weighted rows themselves, weighted[r, :] = weights[r] * x[r, :].
// All [R, D] F64 | F32 | BF16, but weights and dweights [R] F64 | F32. `weighted` may be dy.
struct WeighRowsGradientArgs {
  Tensor dy, x, weights;
  Tensor dx;
  bool accumulate_dx;
  Tensor dweights;
  Tensor weighted;
};
void WeighRowsGradient(const WeighRowsGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
