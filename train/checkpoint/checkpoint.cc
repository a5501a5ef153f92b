#include "train/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace moebius {

CheckpointTensor PlacedTensor(const std::string& name, const Placement& placement,
                              const MeshPosition& at, const Tensor& local) {
  CHECK(local.shape() == placement.LocalShape(at)) << name << " is " << local.shape();
  return {name, placement.global_shape, placement.Pieces(at), local, placement.IsFirstReplica(at)};
}

CheckpointTensor PartTensor(const std::string& name, const Placement& placement,
                            const MeshPosition& at, int64_t begin, int64_t end, const Tensor& local,
                            bool first_replica) {
  CHECK_EQ(local.size(), end - begin) << name;
  const Shape share = placement.LocalShape(at);
  if (local.size() == share.num_elements()) {  // in rows, for other readers of safetensors
    return {name, placement.global_shape, placement.Pieces(at), local.Reshape(share),
            first_replica};
  }
  return {name, placement.global_shape, placement.FlatPieces(at, begin, end),
          local.Reshape({local.size()}), first_replica};
}

CheckpointTensor ReplicatedTensor(const std::string& name, const Tensor& value, int rank) {
  const Placement whole{.global_shape = value.shape(), .cuts = {}, .replicated = {}};
  return {name, value.shape(), whole.Pieces(MeshPosition{}), value, rank == 0};
}

absl::Status AgreeOn(const absl::Status& own, const RankAgreement& ranks) {
  if (ranks.agree) return ranks.agree(own);
  const int64_t failed = ranks.max(own.ok() ? -1 : ranks.rank);
  if (failed < 0 || !own.ok()) return own;
  return absl::AbortedError(absl::StrCat("rank ", failed, " failed; its log says why"));
}

std::string CheckpointName(int64_t step) { return absl::StrFormat("step-%08d", step); }

absl::StatusOr<std::vector<CheckpointFolder>> FindCheckpoints(const std::string& directory) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error);
  if (error == std::errc::no_such_file_or_directory) return found;
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    absl::string_view digits = name;
    int64_t step = 0;
    if (!absl::ConsumePrefix(&digits, "step-") || !absl::SimpleAtoi(digits, &step)) continue;
    if (step >= 0 && name == CheckpointName(step))
      found.push_back({step, entries->path().string()});
  }
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(directory, ": cannot list"));
  }
  std::ranges::sort(found, std::ranges::greater(), &CheckpointFolder::step);
  return found;
}

}  // namespace moebius
