// The one place where data/ reads the config.
#pragma once

#include <string>

#include "configs/data.pb.h"
#include "data/spec.h"

namespace moebius {

// `folder` is where the prepared data goes: data.dir, or its default. REQUIRES: a valid config.
DataSpec DataSpecFromProto(const DataConfig& config, const std::string& folder);

}  // namespace moebius
