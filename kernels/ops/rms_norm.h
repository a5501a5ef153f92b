// Root mean square normalisation (kernels/rms_norm.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// x [T, D], w [C] -> [T, D]: each segment of C elements is normalised. C = D: the whole row;
// C = head width: each head. w is read from its master value.
Var RmsNorm(Tape& tape, const Var& x, Parameter* w, double epsilon);

}  // namespace moebius::ops
