#include "model/attention.h"

#include <cmath>

#include "kernels/ops/attention.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"

namespace moebius {

Attention::Attention(const ModelSpec& spec, const std::string& prefix, ParameterStore& store)
    : spec_(spec) {
  const int64_t D = spec.hidden_size, C = spec.head_dim;
  const int64_t heads = spec.num_heads * C, kv_heads = spec.num_kv_heads * C;
  const double out_std = spec.init_std / std::sqrt(2.0 * static_cast<double>(spec.num_layers));
  q_ = store.AddParameter({prefix + "q.weight", {heads, D}, spec.init_std});
  k_ = store.AddParameter({prefix + "k.weight", {kv_heads, D}, spec.init_std});
  v_ = store.AddParameter({prefix + "v.weight", {kv_heads, D}, spec.init_std});
  o_ = store.AddParameter({prefix + "o.weight", {D, heads}, out_std});
  if (spec.qk_norm == ModelSpec::QkNorm::kNone) return;
  const bool per_head = spec.qk_norm == ModelSpec::QkNorm::kPerHead;
  q_norm_ = store.AddParameter({prefix + "q_norm.weight", {per_head ? C : heads}});
  k_norm_ = store.AddParameter({prefix + "k_norm.weight", {per_head ? C : kv_heads}});
}

Var Attention::Forward(Tape& tape, const Var& x, const MicroBatch& batch) const {
  const auto rotate = [&](const Var& v) {
    return ops::Rotary(tape, v, batch.positions, spec_.head_dim, spec_.rope_theta);
  };
  const Var q = rotate(Normalize(tape, ops::Linear(tape, x, q_), q_norm_));
  const Var k = rotate(Normalize(tape, ops::Linear(tape, x, k_), k_norm_));
  const Var v = ops::Linear(tape, x, v_);
  const ops::AttentionShape shape{.num_sequences = batch.num_sequences,
                                  .sequence_length = batch.sequence_length,
                                  .num_heads = spec_.num_heads,
                                  .num_kv_heads = spec_.num_kv_heads,
                                  .head_dim = spec_.head_dim};
  return ops::Linear(tape, ops::Attention(tape, q, k, v, shape, batch.document_ids), o_);
}

Var Attention::Normalize(Tape& tape, const Var& x, Parameter* gain) const {
  return gain == nullptr ? x : ops::RmsNorm(tape, x, gain, spec_.norm_epsilon);
}

}  // namespace moebius
