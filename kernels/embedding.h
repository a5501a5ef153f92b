// Rows of a table, by token.
//
// tokens [T] int32 in [0, V); w, dw [V, D] F32 | F64; y, dy [T, D] F64 | F32 | BF16 (F64 exactly
// where w is F64).
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// y[t, :] = w[tokens[t], :] in the dtype of y.
void Embedding(const Tensor& tokens, const Tensor& w, const Tensor& y, Context& ctx);

// dw[v, :] = sum over t with tokens[t] = v of dy[t, :], in order of t.
struct EmbeddingGradientArgs {
  Tensor tokens, dy;
  Tensor dw;
  bool accumulate;  // dw is added to
};
void EmbeddingGradient(const EmbeddingGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
