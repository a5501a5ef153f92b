// What rules are written with (validate.cc, validate_parallel.cc, cluster.cc).
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>
#include <vector>

#include "configs/validate.h"

namespace moebius {

using Errors = std::vector<ConfigError>;

// What is missing or out of range in `message`, which stands at `base`, and below.
void CheckFields(const google::protobuf::Message& message, const std::string& base, Errors* errors);

void Require(bool holds, const std::string& path, const std::string& message, Errors* errors);

// The multiples of `unit` around `value`, as "4 or 8"; without 0.
std::string NearestMultiples(int64_t value, int64_t unit);

// The values around `value`, from 1 to `limit`, that divide all of `numbers`, as "2 or 4".
std::string NearestDivisors(int64_t value, int64_t limit, const std::vector<int64_t>& numbers);

bool HasDenseLayer(const ModelConfig& model);

// The rules of ParallelConfig that hold whatever the number of ranks.
void CheckParallel(const RunConfig& config, Errors* errors);

}  // namespace moebius
