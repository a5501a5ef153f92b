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

// Weights in the order of rows, as LinearSum takes them.
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

}  // namespace moebius::kernels
