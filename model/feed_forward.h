// SwiGLU feed-forward of dense layers and shared experts: down(silu(gate x) * up x), arXiv
// 2002.05202.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "model/parameter_store.h"
#include "model/spec.h"

namespace moebius {

class FeedForward {
 public:
  FeedForward(const ModelSpec& spec, int64_t hidden_size, const std::string& prefix,
              ParameterStore& store);

  // x [T, D] -> [T, D]
  Var Forward(Tape& tape, const Var& x) const;

 private:
  Parameter* gate_;  // [F, D]
  Parameter* up_;    // [F, D]
  Parameter* down_;  // [D, F]
};

}  // namespace moebius
