#include "model/feed_forward.h"

#include <cmath>

#include "kernels/ops/activations.h"
#include "kernels/ops/linear.h"

namespace moebius {

FeedForward::FeedForward(const ModelSpec& spec, int64_t hidden_size, const std::string& prefix,
                         ParameterStore& store) {
  const int64_t D = spec.hidden_size, F = hidden_size;
  const double out_std = spec.init_std / std::sqrt(2.0 * static_cast<double>(spec.num_layers));
  gate_ = store.AddParameter({prefix + "gate.weight", {F, D}, spec.init_std});
  up_ = store.AddParameter({prefix + "up.weight", {F, D}, spec.init_std});
  down_ = store.AddParameter({prefix + "down.weight", {D, F}, out_std});
}

Var FeedForward::Forward(Tape& tape, const Var& x) const {
  const Var hidden = ops::SwiGlu(tape, ops::Linear(tape, x, gate_), ops::Linear(tape, x, up_));
  return ops::Linear(tape, hidden, down_);
}

}  // namespace moebius
