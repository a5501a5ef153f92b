// What moves by a routing plan (kernels/routing.h), on the tape.
// Letters: T tokens, E experts, P pairs, D width.
#pragma once

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"

namespace moebius::ops {

// A plan kept for backward: each storage counts once, however many ops keep the plan.
struct SavedPlan {
  Saved token_offsets, expert, expert_offsets, row;
};
SavedPlan SavePlan(Tape& tape, const RoutingPlan& plan);
RoutingPlan LoadPlan(const Tape& tape, const SavedPlan& saved);

// The weight of each pair: scale times its score, divided by the sum of its token's chosen scores
// where `renormalize`. scores [T, E] -> [P]
Var PairWeights(Tape& tape, const Var& scores, const RoutingPlan& plan, bool renormalize,
                double scale);

// Token rows in grouped order.  x [T, D] -> [P, D]
Var Permute(Tape& tape, const Var& x, const RoutingPlan& plan);

// Back to tokens, weighted; zero for a token without expert.  rows [P, D], weights [P] (F32 beside
// BF16 rows) -> [T, D]
Var Combine(Tape& tape, const Var& rows, const Var& weights, const RoutingPlan& plan);

}  // namespace moebius::ops
