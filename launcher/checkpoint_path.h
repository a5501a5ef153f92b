// What users name when they mean a checkpoint.
#pragma once

#include <string>

#include "core/base/status.h"

namespace moebius {

// `path` itself if it is a checkpoint; the newest one, if it is a run directory or its folder of
// checkpoints. NotFound if there is none.
absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path);

}  // namespace moebius
