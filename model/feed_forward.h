// SwiGLU feed-forward of dense layers and shared experts: down(silu(gate x) * up x), arXiv
// 2002.05202. Its hidden width is cut over the tensor axis.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "kernels/ops/swiglu.h"
#include "model/inputs.h"
#include "model/parameter_store.h"
#include "model/spec.h"
#include "parallel/mesh.h"

namespace moebius {

class FeedForward {
 public:
  FeedForward(const ModelSpec& spec, int64_t hidden_size, const std::string& prefix,
              ParameterStore& store, Mesh& mesh);

  // x -> the same shape, [tokens of the shard, D]
  Var Forward(Tape& tape, const Var& x, const MicroBatch& batch) const;

  // Its two halves: x -> [T, F] of the tokens of all ranks of the tensor axis, and back.
  ops::GatedRows Up(Tape& tape, const Var& x, const MicroBatch& batch) const;
  Var Down(Tape& tape, const ops::GatedRows& hidden, const MicroBatch& batch) const;

 private:
  Communicator* const tensor_group_;
  Parameter* gate_;  // [F, D] | F over tensor
  Parameter* up_;    // [F, D] | F over tensor
  Parameter* down_;  // [D, F] | F over tensor
};

}  // namespace moebius
