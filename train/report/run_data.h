// The numbers of a report as JSON, for the script of the page.
#pragma once

#include <string>

#include "core/base/status.h"
#include "train/run_directory/run_directory.h"

namespace moebius {

// One JSON object that is safe inside of a script element: no '<' in it.
//   steps        key -> list, a number or null a record; `stride`: every how many records
//   evaluations  [{step, domain, loss, bits_per_byte}]
//   loads        [{layer, rows}], rows[time][expert] = load over the layer's mean; `load_steps`
//   status       status.json, or null;  unreadable_lines, has_config, has_sample
absl::StatusOr<std::string> RunDataJson(const RunPaths& paths);

}  // namespace moebius
