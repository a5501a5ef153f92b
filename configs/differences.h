// What a resumed run may not change.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"

namespace moebius {

// Paths of the fields that change results (configs/options.proto) and differ between two configs
// with their defaults filled in, in the order of the protos; without train.num_steps, which a
// resumed run may change. Lists of unequal length differ as a whole. Numbers compare exactly.
std::vector<std::string> ResultDifferences(const RunConfig& a, const RunConfig& b);

}  // namespace moebius
