// Products with weights (kernels/linear.h) on the tape. The compute dtype is that of the input.
#pragma once

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"

namespace moebius::ops {

// x [T, D], w [N, D] -> x w^T [T, N]
Var Linear(Tape& tape, const Var& x, Parameter* w);

// One matrix for each group of rows: rows [R, D] grouped by expert, offsets [e + 1] int32,
// w [e, N, D] -> [R, N]
Var GroupedLinear(Tape& tape, const Var& rows, const Tensor& offsets, Parameter* w);

// Tokens to their experts' products and back, without a copy of a token for each of its experts.
// Both take the rows of a plan's grouped order, [P], and their tokens: kernels::RowTokens.
//
// GroupedLinear of the rows x[tokens].  x [T, D], w [e, N, D] -> [P, N]
Var TokensToExperts(Tape& tape, const Var& x, const RoutingPlan& plan, const Tensor& tokens,
                    Parameter* w);

// Combine (ops/routing.h) of GroupedLinear of the rows.  rows [P, N], weights [P] (F32 beside BF16
// rows), w [e, D, N] -> [T, D]
Var ExpertsToTokens(Tape& tape, const Var& rows, const Var& weights, const RoutingPlan& plan,
                    const Tensor& tokens, Parameter* w);

}  // namespace moebius::ops
