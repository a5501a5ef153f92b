// Embedding (kernels/embedding.h) on the tape.
#pragma once

#include "core/tape/tape.h"
#include "kernels/embedding.h"

namespace moebius::ops {

using kernels::VocabularyRange;

// tokens [T] int32, w [V, D] -> [T, D] in dtype `compute`. w is read from its master value. Where w
// is a part of the table, the results of all parts add up to the whole's.
Var Embedding(Tape& tape, const Tensor& tokens, Parameter* w, DType compute,
              const VocabularyRange& range = {});

}  // namespace moebius::ops
