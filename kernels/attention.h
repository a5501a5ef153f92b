// Causal attention with grouped query heads, in blocks: never a matrix of positions by positions.
//
// B sequences of S positions, T = B * S tokens; H query heads share G key/value heads (head h reads
// key/value head h / (H / G)); C is the width of a head. A position sees itself and earlier ones of
// its sequence; with document ids, only those of its own document. Ids do not decrease within a
// sequence, but for -1, which marks padding: its output is zero and it gives no gradient.
//   s_ij = q_i . k_j / sqrt(C),  p_ij = exp(s_ij - logsumexp_i),  y_i = sum_j p_ij v_j
// Online softmax after Milakov and Gimelshein (arXiv:1805.02867); backward from logsumexp after
// Dao et al. (arXiv:2205.14135).
//
// Tensors are F32 or BF16 with sums in F32, or F64. A result's bits do not depend on the number of
// threads.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

struct AttentionShape {
  int64_t num_sequences = 0, sequence_length = 0;
  int64_t num_heads = 0, num_kv_heads = 0;  // num_heads is a multiple
  int64_t head_dim = 0;                     // at most 256
};

struct AttentionArgs {
  AttentionShape shape;
  Tensor q;                  // [T, H * C]
  Tensor k, v;               // [T, G * C]
  Tensor document_ids = {};  // [T] int32, or undefined
  Tensor y;                  // [T, H * C], written
  Tensor logsumexp;          // [T, H] F32 or F64, written; zero for padding
};
void Attention(const AttentionArgs& args, Context& context);

// Each gradient is written, or added to what is there.
struct AttentionGradientArgs {
  AttentionShape shape;
  Tensor q, k, v, document_ids = {}, y, logsumexp;  // as given to and by Attention
  Tensor dy;                                        // [T, H * C]
  Tensor dq, dk, dv;
  bool accumulate_q = false, accumulate_k = false, accumulate_v = false;
};
void AttentionGradient(const AttentionGradientArgs& args, Context& context);

}  // namespace moebius::kernels
