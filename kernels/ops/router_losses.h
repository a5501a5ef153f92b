// Losses on a router (kernels/router_losses.h), as ends of the tape: their gradient is one, times
// `coefficient`. The values returned, [1] F64, leave the coefficient out.
#pragma once

#include "core/tape/tape.h"
#include "kernels/router_losses.h"

namespace moebius::ops {

// scores [T, E]
Tensor BalanceLoss(Tape& tape, const Var& scores, const kernels::BalanceLossOptions& options,
                   double coefficient);

// logits [T, E]
Tensor ZLoss(Tape& tape, const Var& logits, const kernels::ZLossOptions& options,
             double coefficient);

}  // namespace moebius::ops
