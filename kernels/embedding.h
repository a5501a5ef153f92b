// Rows of a table, by token.
//
// tokens [T] int32; w, dw [V, D] F32 | F64; y, dy [T, D] F64 | F32 | BF16 (F64 exactly where w is
// F64). The table may be a part of a larger one, its rows those of tokens first, first + 1, ...:
// other tokens have zeros in y and no part in dw.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// The part of a vocabulary that a table holds. Every token lies in [0, size).
struct VocabularyRange {
  int64_t first = 0;
  int64_t size = 0;  // of the whole vocabulary; 0: the table is whole
};

// y[t, :] = w[tokens[t] - first, :] in the dtype of y.
struct EmbeddingArgs {
  Tensor tokens, w;
  VocabularyRange range = {};
  Tensor y;
};
void Embedding(const EmbeddingArgs& args, Context& ctx);

// dw[v, :] = sum over t with tokens[t] = first + v of dy[t, :], in order of t; a GPU adds up
// segments of a row's tokens, then those in their order. Work is linear in T, whatever the tokens.
struct EmbeddingGradientArgs {
  Tensor tokens, dy;
  VocabularyRange range = {};
  Tensor dw;
  bool accumulate;  // dw is added to
};
void EmbeddingGradient(const EmbeddingGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
