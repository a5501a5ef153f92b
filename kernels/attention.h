// Causal attention with grouped query heads, in blocks: never a matrix of positions by positions.
//
// B sequences of S positions; H query heads share G key/value heads (head h reads key/value head
// h / (H / G)); C is the width of a head. Every position has a key and a value; Q positions of each
// sequence have a query: all S, unless `queries` names the chunks that do. A query sees its own
// position and earlier ones of its sequence; with document ids, only those of its own document. Ids
// do not decrease within a sequence, but for -1, which marks padding: its output is zero and it
// gives no gradient.
//   s_ij = q_i . k_j / sqrt(C),  p_ij = exp(s_ij - logsumexp_i),  y_i = sum_j p_ij v_j
// Online softmax after Milakov and Gimelshein (arXiv:1805.02867); backward from logsumexp after
// Dao et al. (arXiv:2205.14135).
//
// Tensors are F32 or BF16 with sums in F32, or F64. A result's bits do not depend on the number of
// threads.
#pragma once

#include <array>

#include "core/tensor/context.h"

namespace moebius::kernels {

// The positions of each sequence that have queries: one or two chunks of consecutive positions,
// whose rows stand one after the other. With context parallelism a rank has the queries of its own
// chunks, and the keys of all.
struct QueryChunks {
  int num_chunks = 0;                 // 0: every position has a query
  int64_t length = 0;                 // positions of a chunk
  std::array<int64_t, 2> begin = {};  // the first position of each
};

struct AttentionShape {
  int64_t num_sequences = 0, sequence_length = 0;  // B, S
  int64_t num_heads = 0, num_kv_heads = 0;         // num_heads is a multiple
  int64_t head_dim = 0;                            // at most 256
  QueryChunks queries = {};

  // `queries`, spelled out where every position has one.
  QueryChunks query_chunks() const {
    return queries.num_chunks > 0 ? queries : QueryChunks{1, sequence_length};
  }
  int64_t queries_per_sequence() const {  // Q
    const QueryChunks chunks = query_chunks();
    return chunks.num_chunks * chunks.length;
  }
};

struct AttentionArgs {
  AttentionShape shape;
  Tensor q;                  // [B * Q, H * C]
  Tensor k, v;               // [B * S, G * C]
  Tensor document_ids = {};  // [B * S] int32, of all positions, or undefined
  Tensor y;                  // [B * Q, H * C], written
  Tensor logsumexp;          // [B * Q, H] F32 or F64, written; zero for padding
};
void Attention(const AttentionArgs& args, Context& context);

// Each gradient is written, or added to what is there. dk and dv are those of the queries given.
struct AttentionGradientArgs {
  AttentionShape shape;
  Tensor q, k, v, document_ids = {}, y, logsumexp;  // as given to and by Attention
  Tensor dy;                                        // [B * Q, H * C]
  Tensor dq, dk, dv;
  bool accumulate_q = false, accumulate_k = false, accumulate_v = false;
};
void AttentionGradient(const AttentionGradientArgs& args, Context& context);

}  // namespace moebius::kernels
