// How many parameters a model has, and how many of them a token meets.
#pragma once

#include <cstdint>

#include "model/spec.h"

namespace moebius {

struct ParameterCount {
  int64_t dense = 0;           // all but routed experts; a tied table once
  int64_t experts = 0;         // routed, of all layers
  int64_t active_experts = 0;  // of them, those of the experts that a token goes to

  int64_t total() const { return dense + experts; }
  int64_t active() const { return dense + active_experts; }
};

ParameterCount CountParameters(const ModelSpec& spec);

}  // namespace moebius
