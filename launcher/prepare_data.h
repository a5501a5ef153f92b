// From a config's text to its prepared data.
#pragma once

#include "configs/run.pb.h"
#include "core/base/status.h"

namespace moebius {

// Makes data.dir as the config says, with a bar on a terminal. Says so, and does nothing, where it
// is made already.
absl::Status PrepareData(const RunConfig& config);

}  // namespace moebius
