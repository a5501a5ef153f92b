// Embedding (kernels/embedding.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// tokens [T] int32, w [V, D] -> [T, D] in dtype `compute`. w is read from its master value.
Var Embedding(Tape& tape, const Tensor& tokens, Parameter* w, DType compute);

}  // namespace moebius::ops
