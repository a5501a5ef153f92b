// The products of kernels/linear.h on the CPU, for F32 and BF16 operands.
//
// A packed image holds, for each matrix, panels of SimdKernels::panel outputs; within a panel the
// units of an input (a float, or a pair of bf16 where the processor multiplies pairs) stand side by
// side for all its outputs. What a panel lacks is zero. A bf16 image on a processor without
// products of pairs holds floats.
//
// Work is cut into tiles of rows and columns over the pool's threads. An element's sum runs in
// chunks of kMaxDepth units, in order: so its bits depend neither on the tiles nor on the threads.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/linear.h"

namespace moebius::cpu {

struct WeightDims {
  int64_t outputs = 0, inputs = 0;  // of the product that reads the image
};

// Elements of `dtype` in the image of one matrix.
int64_t PackedElements(const WeightDims& dims, DType dtype, const SimdKernels& simd);

// w [N, K] or [e, N, K] F32. The product that reads the image has N outputs, or K if `transposed`.
void PackWeight(const Tensor& w, bool transposed, const Tensor& image, Context& context,
                const SimdKernels& simd);

// y [R, outputs] (+)= x [R, inputs] times the image.
struct MultiplyArgs {
  Tensor x, image, offsets, y;
  bool accumulate = false;
  Tensor rows = {};  // of x
};
void Multiply(const MultiplyArgs& args, Context& context, const SimdKernels& simd);

// Threads have columns of y each, of tokens in a row: so sums are taken in order.
void MultiplySum(const kernels::LinearSumArgs& args, Context& context, const SimdKernels& simd);

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context,
                          const SimdKernels& simd);

}  // namespace moebius::cpu
