// report.html of a run: curves, the table of domains, expert loads as heat maps, config and a
// sample on one page that needs nothing else, neither files nor network.
#pragma once

#include <string>

#include "core/base/status.h"
#include "train/run_directory/run_directory.h"

namespace moebius {

// Reads metrics.jsonl, which must be there, and what there is of status.json, config.textproto and
// sample.txt. A run may go on meanwhile. Long runs are thinned out to about a thousand points a
// curve. NotFound or DataLoss: there is no metrics.jsonl, or no step in it.
absl::StatusOr<std::string> ReportPage(const RunPaths& paths);

// Writes the page to `paths.report()`.
absl::Status WriteReport(const RunPaths& paths);

}  // namespace moebius
