// Root mean square normalisation (kernels/rms_norm.h) of rows whose columns are cut over ranks.
#pragma once

#include "core/tape/tape.h"
#include "parallel/communicator.h"

namespace moebius {

// x [T, C], this rank's columns of rows of C * ranks; w [C], its part of the gain -> [T, C]. Each
// rank's part is that of the whole row normalised: over the group go the sums of squares of each
// row, and in backward those of dy * x * w, one F64 number a row each way. The gradients of x and w
// are exact for the rank's own columns.
//
// F64, F32, BF16. Collective, and equally large on all ranks; no rows are ordinary. The
// communicator outlives the tape.
Var RmsNormOverRanks(Tape& tape, const Var& x, Parameter* w, double epsilon,
                     Communicator* communicator);

}  // namespace moebius
