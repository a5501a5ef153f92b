// From a cluster file to a ClusterConfig in which every default is filled in and every rule holds;
// as configs/load.h does for runs, with the same errors. Thread-safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "configs/cluster.pb.h"

namespace moebius {

// InvalidArgument (or NotFound for a missing file), one line for each error found, in the order of
// the file: "h100.textproto:3:5: device.memory_byte: no such field, did you mean ...?".
absl::StatusOr<ClusterConfig> LoadClusterConfig(const std::string& file);

// The same for text that is already in memory; `name` stands for the file in errors.
absl::StatusOr<ClusterConfig> ParseClusterConfig(const std::string& name, const std::string& text);

// Text format; loads back as an equal one.
std::string PrintCluster(const ClusterConfig& cluster);

}  // namespace moebius
