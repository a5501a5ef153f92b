// Every rule of a RunConfig, in one place.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "configs/run.pb.h"
#include "configs/source_map.h"

namespace moebius {

// All rules that `config`, with its defaults filled in, breaks: first what is missing or out of
// range; only without such errors, what is inconsistent. Empty: the config is valid.
std::vector<ConfigError> FindErrors(const RunConfig& config);

// The rules that need the number of ranks. InvalidArgument with one line for each broken rule: the
// rule, and the nearest values that keep it. REQUIRES: FindErrors(config) is empty.
absl::Status ValidateLayout(const RunConfig& config, int world_size);

// Whether layer `layer` (from 0) has experts.
bool IsMoeLayer(const ModelConfig& model, int layer);

}  // namespace moebius
