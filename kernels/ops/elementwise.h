// Sums and casts (kernels/elementwise.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// a + b, of one shape and dtype: the residual.
Var Add(Tape& tape, const Var& a, const Var& b);

// x in another dtype; x itself where it has that dtype.
Var Cast(Tape& tape, const Var& x, DType dtype);

}  // namespace moebius::ops
