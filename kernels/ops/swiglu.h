// SwiGLU feed-forwards, down(silu(gate x) * up x) (arXiv 2002.05202), of experts and of dense
// layers: what SwiGlu (ops/activations.h) of two products and a third one make, whose activations
// are computed within the products, forward and backward. Of a row the tape keeps what the first
// two made.
#pragma once

#include "core/tape/tape.h"
#include "kernels/ops/linear.h"
#include "kernels/routing_plan.h"

namespace moebius::ops {

// Half way.  [R, F]
struct GatedRows {
  Var gate, up;
  Var h;  // silu(gate) * up; its gradient passes through gate and up
};

// x [T, D]; gate, up [e, F, D], or [F, D] without offsets
GatedRows GateAndUp(Tape& tape, const Var& x, const ProductRows& rows, Parameter* gate,
                    Parameter* up);

// h down^T, down [e, D, F], or [D, F] without offsets -> [R, D]
Var Down(Tape& tape, const GatedRows& hidden, const Tensor& offsets, Parameter* down);

// Combine (ops/routing.h) of Down: rows of a plan's pairs, added up at their tokens with the
// weights [P] (F32 beside BF16) of the pairs. tokens [P]: kernels::RowTokens -> [T, D]
Var DownToTokens(Tape& tape, const GatedRows& hidden, const Var& weights, const RoutingPlan& plan,
                 const Tensor& tokens, Parameter* down);

}  // namespace moebius::ops
