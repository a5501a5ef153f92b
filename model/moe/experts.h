// The routed experts of a layer that live on this rank: SwiGLU feed-forwards over ragged rows.
// Their hidden width may be cut over the expert-tensor axis: results are then parts of a sum.
#pragma once

#include <string>
#include <vector>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
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

  // The same for tokens x [B, D] that stand where they are: the weighted sums of what their experts
  // make of them.  weights [R], of a plan of the B tokens; row_tokens: kernels::RowTokens -> [B, D]
  Var ForwardInPlace(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
                     const Tensor& row_tokens) const;

 private:
  Parameter *gate_, *up_;  // [E, F, D] | E over expert, F over expert_tensor
  Parameter* down_;        // [E, D, F] | likewise
};

}  // namespace moebius
