// Products with weights (kernels/linear.h) on the tape. The compute dtype is that of the input.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// x [T, D], w [N, D] -> x w^T [T, N]
Var Linear(Tape& tape, const Var& x, Parameter* w);

// One matrix for each group of rows: rows [R, D] grouped by expert, offsets [e + 1] int32,
// w [e, N, D] -> [R, N]
Var GroupedLinear(Tape& tape, const Var& rows, const Tensor& offsets, Parameter* w);

}  // namespace moebius::ops
