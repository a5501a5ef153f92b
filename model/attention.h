// Grouped-query attention with rotary positions.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "model/inputs.h"
#include "model/parameter_store.h"
#include "model/spec.h"

namespace moebius {

class Attention {
 public:
  // `prefix` of the parameter names: "layers.3.attention."
  Attention(const ModelSpec& spec, const std::string& prefix, ParameterStore& store);

  // x [T, D] -> [T, D]
  Var Forward(Tape& tape, const Var& x, const MicroBatch& batch) const;

 private:
  Var Normalize(Tape& tape, const Var& x, Parameter* gain) const;

  const ModelSpec& spec_;
  Parameter* q_;                 // [H * C, D]
  Parameter* k_;                 // [G * C, D]
  Parameter* v_;                 // [G * C, D]
  Parameter* o_;                 // [D, H * C]
  Parameter* q_norm_ = nullptr;  // [C] or [H * C]
  Parameter* k_norm_ = nullptr;  // [C] or [G * C]
};

}  // namespace moebius
