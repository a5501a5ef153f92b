// Sums, casts, and what optimizers and clipping need of whole tensors.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// y = a + b, all of one shape and one dtype (F64 | F32 | BF16). y may be a or b.
void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx);

// y = x, or y += x, in the dtype of y: between any two of F64, F32, BF16.
struct CastArgs {
  Tensor x;
  Tensor y;
  bool accumulate = false;
};
void Cast(const CastArgs& args, Context& ctx);

// x *= factor.  x F64 | F32
void Scale(const Tensor& x, double factor, Context& ctx);

// sum[0] (+)= sum of x.  x [n] F64, sum [1] F64; on the CPU in their order.
struct SumArgs {
  Tensor x;
  Tensor sum;
  bool accumulate = false;
};
void Sum(const SumArgs& args, Context& ctx);

// sum[0] = sum of x^2.  x F64 | F32 | BF16 of any shape, sum [1] F64. Added up in double, in blocks
// that depend on the size alone.
void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx);

}  // namespace moebius::kernels
