// `--set path=value`. Internal to configs/; the forms of an override stand in configs/load.h.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "configs/source_map.h"

namespace moebius {

// Applies `override`, the order-th (from 1) of the command line, to *config and *origins; on
// failure appends to *errors and leaves both unchanged.
void ApplyOverride(const std::string& override, int order, RunConfig* config, SourceMap* origins,
                   std::vector<LocatedError>* errors);

}  // namespace moebius
