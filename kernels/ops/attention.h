// Causal attention (kernels/attention.h) on the tape.
#pragma once

#include "core/tape/tape.h"
#include "kernels/attention.h"

namespace moebius::ops {

using kernels::AttentionShape;
using kernels::QueryChunks;

// q [B * Q, H * C], k and v [B * S, G * C] -> [B * Q, H * C]; Q = S unless shape.queries names
// chunks. `document_ids` [B * S] int32, of all positions, or undefined.
Var Attention(Tape& tape, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
              const Tensor& document_ids);

}  // namespace moebius::ops
