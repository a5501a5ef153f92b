// Attention of kernels/attention.h on the CPU, for F32 and BF16 tensors; all sums in F32.
//
// Work is cut by sequence and key/value head. A task copies its keys and values once, transposed
// into panels, and walks over blocks of queries; a block of scores lives in the scratch of a
// thread. Key blocks outside the documents of a query block are skipped.
#pragma once

#include "kernels/attention.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

void Attention(const kernels::AttentionArgs& args, Context& context, const SimdKernels& simd);
void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context,
                       const SimdKernels& simd);

}  // namespace moebius::cpu
