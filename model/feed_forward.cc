#include "model/feed_forward.h"

#include <cmath>

#include "parallel/ops/sequence.h"

namespace moebius {

FeedForward::FeedForward(const ModelSpec& spec, int64_t hidden_size, const std::string& prefix,
                         ParameterStore& store, Mesh& mesh)
    : tensor_group_(&mesh.group(Axis::kTensor)) {
  const int64_t D = spec.hidden_size, F = hidden_size;
  const double out_std = spec.init_std / std::sqrt(2.0 * static_cast<double>(spec.num_layers));
  const auto add = [&](const char* name, const Shape& shape, double deviation, int cut) {
    return store.AddParameter({.name = prefix + name,
                               .shape = shape,
                               .standard_deviation = deviation,
                               .cuts = {store.CutOver(Axis::kTensor, cut, F)}});
  };
  gate_ = add("gate.weight", {F, D}, spec.init_std, 0);
  up_ = add("up.weight", {F, D}, spec.init_std, 0);
  down_ = add("down.weight", {D, F}, out_std, 1);
}

Var FeedForward::Forward(Tape& tape, const Var& x, const MicroBatch& batch) const {
  return Down(tape, Up(tape, x, batch), batch);
}

ops::GatedRows FeedForward::Up(Tape& tape, const Var& x, const MicroBatch& batch) const {
  const Var all = GatherSequence(tape, x, batch.over_tensor, tensor_group_);
  return ops::GateAndUp(tape, all, {}, gate_, up_);
}

Var FeedForward::Down(Tape& tape, const ops::GatedRows& hidden, const MicroBatch& batch) const {
  const Var part = ops::Down(tape, hidden, Tensor(), down_);
  return ScatterSequence(tape, part, batch.over_tensor, tensor_group_);
}

}  // namespace moebius
