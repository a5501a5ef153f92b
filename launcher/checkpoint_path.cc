#include "launcher/checkpoint_path.h"

#include <filesystem>

#include "train/checkpoint/checkpoint.h"

namespace moebius {

absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path) {
  if (std::filesystem::exists(path + "/manifest.json")) return path;
  for (const std::string& folder : {path, path + "/checkpoints"}) {
    if (!std::filesystem::is_directory(folder)) continue;
    ASSIGN_OR_RETURN(const std::vector<CheckpointFolder> found, FindCheckpoints(folder));
    if (!found.empty()) return found.front().path;
  }
  return absl::NotFoundError(absl::StrCat(path, ": holds no checkpoint"));
}

}  // namespace moebius
