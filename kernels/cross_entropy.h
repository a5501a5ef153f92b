// Cross-entropy of rows of logits. The product that makes the logits stands in ops/cross_entropy.h.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// nll[r] = weights[r] * (log sum exp logits[r, :] - logits[r, labels[r]]), free of overflow
// dlogits[r, v] = weights[r] * (softmax(logits[r, :])[v] - [v = labels[r]])
//
// logits [R, V] F64 | F32; labels [R] int32; weights [R] F32 (F64 where logits are F64); nll [R]
// F64. A row of weight 0 is padding: its label is not read, its nll and dlogits are zero.
struct CrossEntropyArgs {
  Tensor logits, labels, weights;
  Tensor nll;
  Tensor dlogits = {};  // [R, V], in the dtype of logits or BF16; may be logits; undefined: skipped
};
void CrossEntropy(const CrossEntropyArgs& args, Context& ctx);

// Where rows are cut into parts of the vocabulary, and a part's columns stand for labels first,
// first + 1, ...: each part gives statistics, which are combined to those of whole rows, and with
// them each part has its losses and gradients.
//
// statistics [R, 3] F64: max of logits[r, :], sum of exp(logits[r, :] - max), the label's logit (0
// in parts that do not have it).
struct CrossEntropyStatisticsArgs {
  Tensor logits, labels, weights;
  int64_t first = 0;
  Tensor statistics;
};
void CrossEntropyStatistics(const CrossEntropyStatisticsArgs& args, Context& ctx);

// Of n parts, parts [n, R, 3], to those of whole rows, [R, 3].
void CombineStatistics(const Tensor& parts, const Tensor& whole, Context& ctx);

// nll is that of whole rows, in every part; dlogits are the part's.
struct CrossEntropyOfPartArgs {
  Tensor logits, labels, weights;
  int64_t first = 0;
  Tensor statistics;  // of whole rows
  Tensor nll;
  Tensor dlogits = {};  // as in CrossEntropyArgs
};
void CrossEntropyOfPart(const CrossEntropyOfPartArgs& args, Context& ctx);

}  // namespace moebius::kernels
