// Nonlinearities (kernels/activations.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// silu(gate) * up.  [R, F], [R, F] -> [R, F]
Var SwiGlu(Tape& tape, const Var& gate, const Var& up);

// Router scores, by row or by element.  z [T, E] -> [T, E]
Var Softmax(Tape& tape, const Var& z);
Var Sigmoid(Tape& tape, const Var& z);

}  // namespace moebius::ops
