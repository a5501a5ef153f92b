#include "train/planner/parameter_count.h"

namespace moebius {
namespace {

// Queries, keys, values, output, and the norms before attention and feed-forward.
int64_t OfAttention(const ModelSpec& spec) {
  const int64_t heads = spec.num_heads * spec.head_dim,
                kv_heads = spec.num_kv_heads * spec.head_dim;
  const int64_t norms = 2 * spec.hidden_size;
  const int64_t qk_norms = spec.qk_norm == ModelSpec::QkNorm::kNone      ? 0
                           : spec.qk_norm == ModelSpec::QkNorm::kPerHead ? 2 * spec.head_dim
                                                                         : heads + kv_heads;
  return 2 * spec.hidden_size * (heads + kv_heads) + norms + qk_norms;
}

}  // namespace

ParameterCount CountParameters(const ModelSpec& spec) {
  const int64_t D = spec.hidden_size;
  const int64_t tables = spec.tie_embeddings ? 1 : 2;
  const int64_t expert = 3 * D * spec.moe.expert_hidden_size;
  ParameterCount count{.dense = tables * spec.vocab_size * D + D};
  for (const bool is_moe : spec.is_moe_layer) {
    count.dense += OfAttention(spec);
    if (is_moe) {
      count.dense += D * spec.moe.num_experts + expert * spec.moe.num_shared_experts;
      count.experts += expert * spec.moe.num_experts;
      count.active_experts += expert * spec.moe.top_k;
    } else {
      count.dense += 3 * D * spec.ffn_hidden_size;
    }
  }
  return count;
}

}  // namespace moebius
