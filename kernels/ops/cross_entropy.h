// The language model's loss, fused with the output product, in chunks of tokens: never the logits
// of a whole batch. The chunk depends on the vocabulary alone.
#pragma once

#include <functional>

#include "core/tape/tape.h"

namespace moebius::ops {

// The part of the vocabulary that a head holds: rows for labels first, first + 1, ...
struct VocabularyPart {
  int64_t first = 0;
  int64_t size = 0;  // of the whole vocabulary: ranks take equal chunks of tokens
  // Makes the statistics of this part those of whole rows, [R, 3] F64, in place
  // (kernels::CombineStatistics): called for each chunk, on every rank that has a part. Null: the
  // head is whole.
  std::function<void(const Tensor& statistics)> combine = nullptr;
};

// sum_t weights[t] * nll[t], nll[t] = -log softmax(head x_t)[labels[t]]; [1] F64. An end of the
// tape: its gradient is one. Where the tape keeps, the gradients are computed at once, chunk by
// chunk: the head's is written here, the input's is kept and handed over in backward.
//
// x [T, D], head [V, D], labels [T] int32, weights [T] F32 (F64 where x is F64), already divided by
// the loss weight of the global batch. A token of weight 0 is padding: its label is not read. With
// a part of the head the loss is that of the whole, and the input's gradient this part's share.
Tensor CrossEntropyLoss(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                        const Tensor& weights, const VocabularyPart& part = {});

// weights[t] * nll[t] of each token, for evaluation: [T] F64. Records nothing.
Tensor TokenLosses(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                   const Tensor& weights, const VocabularyPart& part = {});

}  // namespace moebius::ops
