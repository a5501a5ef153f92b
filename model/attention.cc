#include "model/attention.h"

#include <cmath>

#include "kernels/ops/attention.h"
#include "kernels/ops/columns.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "parallel/ops/rms_norm.h"
#include "parallel/ops/sequence.h"

namespace moebius {

Attention::Attention(const ModelSpec& spec, const std::string& prefix, ParameterStore& store,
                     Mesh& mesh)
    : spec_(spec),
      tensor_group_(&mesh.group(Axis::kTensor)),
      context_group_(&mesh.group(Axis::kContext)),
      cuts_kv_heads_(tensor_group_->size() <= spec.num_kv_heads) {
  const int64_t D = spec.hidden_size, C = spec.head_dim;
  const int64_t heads = spec.num_heads * C, kv_heads = spec.num_kv_heads * C;
  const double out_std = spec.init_std / std::sqrt(2.0 * static_cast<double>(spec.num_layers));
  const Cut by_head = store.CutOver(Axis::kTensor, 0, heads);
  const std::vector<Cut> by_kv_head =
      cuts_kv_heads_ ? std::vector<Cut>{store.CutOver(Axis::kTensor, 0, kv_heads)}
                     : std::vector<Cut>{};
  const auto add = [&](const char* name, const Shape& shape, double deviation,
                       const std::vector<Cut>& cuts) {
    return store.AddParameter(
        {.name = prefix + name, .shape = shape, .standard_deviation = deviation, .cuts = cuts});
  };
  q_ = add("q.weight", {heads, D}, spec.init_std, {by_head});
  k_ = add("k.weight", {kv_heads, D}, spec.init_std, by_kv_head);
  v_ = add("v.weight", {kv_heads, D}, spec.init_std, by_kv_head);
  o_ = add("o.weight", {D, heads}, out_std, {store.CutOver(Axis::kTensor, 1, heads)});
  if (spec.qk_norm == ModelSpec::QkNorm::kNone) return;
  const bool per_head = spec.qk_norm == ModelSpec::QkNorm::kPerHead;
  const auto add_norm = [&](const char* name, int64_t width, const std::vector<Cut>& cuts) {
    return per_head ? store.AddParameter({prefix + name, {C}})
                    : add(name, {width}, /*deviation=*/0, cuts);
  };
  q_norm_ = add_norm("q_norm.weight", heads, {by_head});
  k_norm_ = add_norm("k_norm.weight", kv_heads, by_kv_head);
}

Var Attention::Forward(Tape& tape, const Var& x, const MicroBatch& batch) const {
  const auto rotate = [&](const Var& v) {
    return ops::Rotary(tape, v, batch.positions, spec_.head_dim, spec_.rope_theta);
  };
  const Var all = GatherSequence(tape, x, batch.over_tensor, tensor_group_);
  const Var q = rotate(Normalize(tape, ops::Linear(tape, all, q_), q_norm_, /*is_cut=*/true));
  const Var k = rotate(Normalize(tape, ops::Linear(tape, all, k_), k_norm_, cuts_kv_heads_));
  const Var v = ops::Linear(tape, all, v_);
  const int64_t ranks = tensor_group_->size();
  const ops::AttentionShape shape{.num_sequences = batch.num_sequences,
                                  .sequence_length = batch.sequence_length,
                                  .num_heads = spec_.num_heads / ranks,
                                  .num_kv_heads = cuts_kv_heads_ ? spec_.num_kv_heads / ranks : 1,
                                  .head_dim = spec_.head_dim,
                                  .queries = batch.queries};
  const Var y = ops::Attention(tape, q, OwnHeads(tape, k, batch), OwnHeads(tape, v, batch), shape,
                               batch.sequence_document_ids);
  return ScatterSequence(tape, ops::Linear(tape, y, o_), batch.over_tensor, tensor_group_);
}

Var Attention::Normalize(Tape& tape, const Var& x, Parameter* gain, bool is_cut) const {
  if (gain == nullptr) return x;
  const bool over_ranks = spec_.qk_norm == ModelSpec::QkNorm::kWhole && is_cut;
  return over_ranks && tensor_group_->size() > 1
             ? RmsNormOverRanks(tape, x, gain, spec_.norm_epsilon, tensor_group_)
             : ops::RmsNorm(tape, x, gain, spec_.norm_epsilon);
}

Var Attention::OwnHeads(Tape& tape, const Var& x, const MicroBatch& batch) const {
  Var own = x;
  if (!cuts_kv_heads_) {
    const int64_t ranks_of_a_head = tensor_group_->size() / spec_.num_kv_heads;
    const int64_t head = tensor_group_->rank() / ranks_of_a_head;
    own = ops::Columns(tape, x, head * spec_.head_dim, (head + 1) * spec_.head_dim);
  }
  return GatherSequence(tape, own, batch.over_context, context_group_);
}

}  // namespace moebius
