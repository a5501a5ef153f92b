// The products of kernels/linear.h on the CPU, for F32 and BF16 operands. Their weights are
// packed images (weight_images.h).
//
// Work is cut into tiles of rows and columns over the pool's threads. An element's sum runs in
// chunks of a fixed number of units, in order: so its bits depend neither on the tiles nor on the
// threads.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/linear.h"

namespace moebius::cpu {

// Whichever way the image w of the weight turns it: its outputs are y's columns.
void Multiply(const kernels::LinearArgs& args, Context& context, const SimdKernels& simd);

// A task has a tile of columns and a range of tokens: so sums are taken in order.
void MultiplySum(const kernels::LinearSumArgs& args, Context& context, const SimdKernels& simd);

void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& context,
                          const SimdKernels& simd);

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context,
                          const SimdKernels& simd);

}  // namespace moebius::cpu
