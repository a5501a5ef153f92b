// The language model's loss, fused with the output product, in chunks of tokens: never the logits
// of a whole batch. The chunk depends on the vocabulary alone.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// sum_t weights[t] * nll[t], nll[t] = -log softmax(head x_t)[labels[t]]; [1] F64. An end of the
// tape: its gradient is one. Where the tape keeps, the gradients are computed at once, chunk by
// chunk: the head's is written here, the input's is kept and handed over in backward.
//
// x [T, D], head [V, D], labels [T] int32, weights [T] F32 (F64 where x is F64), already divided by
// the loss weight of the global batch. A token of weight 0 is padding: its label is not read.
Tensor CrossEntropyLoss(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                        const Tensor& weights);

// weights[t] * nll[t] of each token, for evaluation: [T] F64. Records nothing.
Tensor TokenLosses(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                   const Tensor& weights);

}  // namespace moebius::ops
