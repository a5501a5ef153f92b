// Grouped-query attention with rotary positions. Heads are cut over the tensor axis; where there
// are fewer key/value heads than ranks, each rank has all of them and uses its own. Over the
// context axis queries stay where their tokens are, and keys and values are gathered.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "model/inputs.h"
#include "model/parameter_store.h"
#include "model/spec.h"
#include "parallel/mesh.h"

namespace moebius {

class Attention {
 public:
  // `prefix` of the parameter names: "layers.3.attention."
  // REQUIRES: the tensor size divides H, and G or is a multiple of G.
  Attention(const ModelSpec& spec, const std::string& prefix, ParameterStore& store, Mesh& mesh);

  // x -> the same shape, [tokens of the shard, D]
  Var Forward(Tape& tape, const Var& x, const MicroBatch& batch) const;

 private:
  // Queries or keys; `is_cut`: this rank has its own heads of them, not all.
  Var Normalize(Tape& tape, const Var& x, Parameter* gain, bool is_cut) const;
  // Keys or values of this rank's heads, for every position.  x [T, D] -> [B * S, heads * C]
  Var OwnHeads(Tape& tape, const Var& x, const MicroBatch& batch) const;

  const ModelSpec& spec_;
  Communicator* const tensor_group_;
  Communicator* const context_group_;
  const bool cuts_kv_heads_;
  Parameter* q_;                 // [H * C, D] | H over tensor
  Parameter* k_;                 // [G * C, D] | G over tensor, if it has as many ranks at most
  Parameter* v_;                 // as k
  Parameter* o_;                 // [D, H * C] | H over tensor
  Parameter* q_norm_ = nullptr;  // [C], or [H * C] cut as the rows of q
  Parameter* k_norm_ = nullptr;  // [C], or [G * C] cut as the rows of k
};

}  // namespace moebius
