// Causal attention (kernels/attention.h) on the tape.
#pragma once

#include "core/tape/tape.h"
#include "kernels/attention.h"

namespace moebius::ops {

using kernels::AttentionShape;

// q [T, H * C], k and v [T, G * C] -> [T, H * C]. `document_ids` [T] int32 or undefined.
Var Attention(Tape& tape, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
              const Tensor& document_ids);

}  // namespace moebius::ops
