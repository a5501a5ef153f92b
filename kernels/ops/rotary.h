// Rotary position embedding (kernels/rotary.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// x [T, H*C], positions [T] int32, C = head_dim -> [T, H*C]
Var Rotary(Tape& tape, const Var& x, const Tensor& positions, int64_t head_dim, double theta);

}  // namespace moebius::ops
