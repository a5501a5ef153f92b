// Products with weights, dense or grouped over ragged experts.
//
// R rows, K inputs and N outputs of a weight w [N, K]. Grouped: e matrices w [e, N, K] and
// `offsets` [e + 1] int32 on the operands' device, ascending from 0 to at most R; rows offsets[j]
// .. offsets[j + 1] belong to matrix j, and those behind the last group to none: results are not
// written there, and depend on nothing that stands there. Zero rows, and groups without rows, are
// ordinary. An undefined `offsets` means one matrix for all rows.
//
// Operands are F32, BF16 or F64; sums are kept in F32, or in F64 where the operands are F64. With
// `accumulate` the result is added to what is there. A result's bits depend on the operands alone:
// neither on the number of threads nor on the other rows.
//
// `rows` [R] int32 say where the rows of the product stand in an operand of T other rows: so tokens
// need not be copied into the order of their experts. Undefined: row r stands at r.
#pragma once

#include "core/placement/parameter.h"
#include "core/tensor/context.h"

namespace moebius::kernels {

// y[r, :] (+)= w x[r, :]. `w` is the weight's kPacked image (weight_images.h) in x's dtype. y has
// x's dtype, or F32.
//
// As the second product of a SwiGLU (activations.h) it makes h = silu(gate) * y as well, block by
// block, while y is in a cache: all of x's dtype.
struct LinearArgs {
  Tensor x;             // [R, K], or [T, K] with `rows`
  Tensor w;             // image of [N, K] or [e, N, K]
  Tensor offsets = {};  // [e + 1] or undefined
  Tensor y;             // [R, N]
  bool accumulate = false;
  Tensor rows = {};          // of x
  Tensor gate = {}, h = {};  // [R, N], or both undefined
};
void Linear(const LinearArgs& args, Context& context);

// dx[r, :] (+)= w^T dy[r, :]. `w` is the kPackedTransposed image in dy's dtype. dx has dy's dtype,
// or F32.
struct LinearInputGradientArgs {
  Tensor dy;            // [R, N], or [T, N] with `rows`
  Tensor w;             // image of [N, K] or [e, N, K]
  Tensor offsets = {};  // [e + 1] or undefined
  Tensor dx;            // [R, K]
  bool accumulate = false;
  Tensor rows = {};  // of dy
};
void LinearInputGradient(const LinearInputGradientArgs& args, Context& context);

// Of y[t, :] = the sum over the rows r of token t of weights[r] * w h[r, :], where h = silu(gate) *
// up: the input gradient of the product, taken on to gate and up block by block, while it is in a
// cache. All in dy's dtype, but weights and dweights F32 (F64 where dy is).
struct LinearSwiGluGradientArgs {
  Tensor dy;             // [R, N], or [T, N] with `rows`
  Tensor w;              // kPackedTransposed image of [e, N, F]
  Tensor offsets;        // [e + 1]
  Tensor rows = {};      // of dy
  Tensor weights = {};   // [R]; undefined: ones
  Tensor gate, up;       // [R, F]
  Tensor dgate, dup;     // [R, F]
  Tensor h;              // [R, F]: weights[r] * h[r, :], of which and dy the gradient of w is made
  Tensor dweights = {};  // [R], if weights are defined: h[r, :] w^T dy[t, :]
};
void LinearSwiGluGradient(const LinearSwiGluGradientArgs& args, Context& context);

// dw (+)= dy^T x for each group; zero for a group without rows. dy and x have one dtype, dw is F32
// (F64 for F64).
struct LinearWeightGradientArgs {
  Tensor dy;            // [R, N], or [T, N] with `dy_rows`
  Tensor x;             // [R, K], or [T, K] with `x_rows`
  Tensor offsets = {};  // [e + 1] or undefined
  Tensor dw;            // [N, K] or [e, N, K]
  bool accumulate = false;
  Tensor dy_rows = {}, x_rows = {};
};
void LinearWeightGradient(const LinearWeightGradientArgs& args, Context& context);

// y[t, :] (+)= the sum over the rows r with rows[r] = t, in their order, of weights[r] times w x[r,
// :] (kPacked: M = N outputs of K inputs) or w^T x[r, :] (kPackedTransposed: M = K of N). BF16 is
// rounded once, behind the sum. Within a group rows ascend, as those of a plan do.
struct LinearSumArgs {
  Tensor x;  // [R, inputs]
  Tensor w;  // image of [e, N, K]
  WeightFormat format;
  Tensor offsets;       // [e + 1], to R
  Tensor rows;          // [R] of y
  Tensor weights = {};  // [R] F32 (F64 where x is); undefined: ones
  Tensor y;             // [T, M] in x's dtype, or F32
  bool accumulate = false;
};
void LinearSum(const LinearSumArgs& args, Context& context);

}  // namespace moebius::kernels
