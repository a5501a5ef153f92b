// A range of a tensor's columns: what a rank needs of keys that ranks share.
//
// x [T, N], y [T, n] with begin + n <= N; all tensors of a call have one dtype (F64 | F32 | BF16).
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// y = x[:, begin .. begin + n)
void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx);

// dx[:, begin .. begin + n) = dy and zero elsewhere; or dy is added there and the rest stays.
struct ColumnsGradientArgs {
  Tensor dy;
  int64_t begin = 0;
  Tensor dx;
  bool accumulate = false;
};
void ColumnsGradient(const ColumnsGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
