// A range of columns (kernels/columns.h) on the tape.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// x [T, N] -> its columns begin .. end [T, end - begin]; x itself where these are all.
Var Columns(Tape& tape, const Var& x, int64_t begin, int64_t end);

}  // namespace moebius::ops
