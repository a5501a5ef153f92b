// The routed experts of a layer that live on this rank: SwiGLU feed-forwards over ragged rows.
// Their hidden width may be cut over the expert-tensor axis: results are then parts of a sum.
#pragma once

#include <string>
#include <vector>

#include "core/tape/tape.h"
#include "model/parameter_store.h"
#include "model/spec.h"

namespace moebius {

class Experts {
 public:
  // owner[i]: the position on the expert axis that holds expert i.
  Experts(const ModelSpec& spec, const std::string& prefix, const std::vector<int>& owner,
          ParameterStore& store);

  // rows [R, D] grouped by local expert: expert j has rows offsets[j] .. offsets[j + 1] -> [R, D]
  Var Forward(Tape& tape, const Var& rows, const Tensor& offsets) const;

 private:
  Parameter* gate_;  // [E, F, D] | E over expert, F over expert_tensor
  Parameter* up_;    // [E, F, D] | E over expert, F over expert_tensor
  Parameter* down_;  // [E, D, F] | E over expert, F over expert_tensor
};

}  // namespace moebius
