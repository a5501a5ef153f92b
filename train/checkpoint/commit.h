// The steps by which a checkpoint comes to be on disk (docs/formats/checkpoint.md, "Writing"). A
// crash between any two leaves the older checkpoints and, at most, a temporary folder.
#pragma once

#include <string>

#include "train/checkpoint/checkpoint.h"

namespace moebius {

// Writes this rank's shard and its list of pieces into `folder`, made if missing, flushed to disk.
absl::Status WriteShare(const CheckpointContent& content, int rank, const std::string& folder);

// Joins the lists of `world_size` ranks into the manifest, and makes `temporary` visible as the
// checkpoint of `step`. Then removes all but the newest `keep_last` checkpoints.
absl::Status CommitCheckpoint(const std::string& temporary, const std::string& directory,
                              int64_t step, int world_size, int keep_last);

// Makes the directory ready for a run that goes on from `resumed_step`: see CheckpointWriter.
absl::Status PrepareDirectory(const std::string& directory, int64_t resumed_step);

// Removes a folder that no reader knows; errors are left to the next run.
void RemoveTemporary(const std::string& folder);

}  // namespace moebius
