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

}  // namespace moebius::kernels
