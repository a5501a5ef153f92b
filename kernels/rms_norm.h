// Root mean square normalisation of segments of C elements: a whole row (C = D), or each head of a
// row (C = head width, for QK norm).
//   y = x * rstd * w,  rstd = 1 / sqrt(mean over the segment of x^2 + epsilon)
// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
//
// x, y, dy, dx [..., D] F64 | F32 | BF16, all of one dtype; D is a multiple of C.
// w, dw [C] F32 (F64 where x is F64). Sums are taken in fp32 or better. rstd is not kept: the
// gradients read x once anyway. No rows: dw is zero.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// What a part of the columns of rows needs of whole rows, where ranks have a part each. Then C is
// the width of the part, D = C, and the mean square is squares / width.
struct WholeRows {
  int64_t width = 0;     // 0: rows are whole, and the tensors undefined
  Tensor squares = {};   // [R] F64: sum of x^2
  Tensor products = {};  // [R] F64: sum of dy * x * w; for the input's gradient
};

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const WholeRows& whole = {});

// A part's term of such a sum: sums[r] = sum over c of a[r, c] * b[r, c] * w[c].
// a, b [R, C]; w [C], undefined: ones; sums [R] F64.
struct RowProductsArgs {
  Tensor a, b;
  Tensor w = {};
  Tensor sums;
};
void RowProducts(const RowProductsArgs& args, Context& ctx);

struct RmsNormInputGradientArgs {
  Tensor dy, x, w;
  double epsilon;
  Tensor dx;
  bool accumulate;  // dx is added to
  WholeRows whole = {};
};
void RmsNormInputGradient(const RmsNormInputGradientArgs& args, Context& ctx);

struct RmsNormWeightGradientArgs {
  Tensor dy, x;
  double epsilon;
  Tensor dw;
  bool accumulate;  // dw is added to
  WholeRows whole = {};
};
void RmsNormWeightGradient(const RmsNormWeightGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
