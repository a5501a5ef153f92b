// Attention of kernels/attention.h on the CPU, for F32 and BF16 tensors; all sums in F32.
//
// Products run on units (units.h). Where the processor multiplies pairs, attention weights and the
// gradients of scores are rounded to bf16 before they are multiplied; the softmax and its sums are
// not.
//
// A task is a sequence, a key/value head, and a part of its queries. It copies its keys and values
// once, as operands, when its queries reach them; a block of scores lives in the scratch of its
// thread, and keys outside the documents of a block of queries are skipped. Rows of a head stand
// apart in memory: those of the next block are fetched while the scores of one become weights.
// * Forward, each block of queries goes over its keys. Rows do not depend on each other: there are
//   as many parts as threads need.
// * Backward, each block of keys goes over the queries, so that its sums of dk and dv stay in a
//   cache. Where heads are few and queries many, parts have sums of their own, which are added in
//   order: how many there are depends on sizes alone, as bits depend on it. All together they take
//   less memory than dk and dv of 32 heads in F32.
#pragma once

#include "kernels/attention.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

void Attention(const kernels::AttentionArgs& args, Context& context, const SimdKernels& simd);
void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context,
                       const SimdKernels& simd);

}  // namespace moebius::cpu
