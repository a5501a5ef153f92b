// SwiGLU feed-forwards of experts over ragged rows, on the tape: what SwiGlu (ops/activations.h) of
// two GroupedLinear (ops/linear.h) and a third one make, whose activations are computed within the
// products, forward and backward. Of a row the tape keeps what the first two products made.
#pragma once

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"

namespace moebius::ops {

// Of e experts of hidden width F for rows of D.
struct ExpertWeights {
  Parameter *gate, *up;  // [e, F, D]
  Parameter* down;       // [e, D, F]
};

// rows [R, D] grouped by expert, offsets [e + 1] int32 -> down(silu(gate rows) * up rows) [R, D]
Var ExpertsOfRows(Tape& tape, const Var& rows, const Tensor& offsets, const ExpertWeights& w);

// Combine (ops/routing.h) of ExpertsOfRows of x's tokens, without a copy of a token for each of its
// experts.  x [T, D], weights [P] (F32 beside BF16), of a plan of the T tokens; tokens [P]:
// kernels::RowTokens -> [T, D]
Var ExpertsOfTokens(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
                    const Tensor& tokens, const ExpertWeights& w);

}  // namespace moebius::ops
