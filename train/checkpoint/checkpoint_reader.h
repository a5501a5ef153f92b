// Reads checkpoints (docs/formats/checkpoint.md) of any layout into any layout. Errors name file
// and tensor: NotFound if there is no such checkpoint or tensor, DataLoss if it is damaged,
// InvalidArgument if it holds another shape or dtype than asked for. Const functions are
// thread-safe.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/manifest.h"
#include "train/checkpoint/safetensors.h"

namespace moebius {

class CheckpointReader {
 public:
  // Checks all but the tensors' bytes.
  static absl::StatusOr<CheckpointReader> Open(const std::string& path);

  // Compares the bytes with their checksums; of `num_shares` callers each checks a share.
  absl::Status Verify(int share = 0, int num_shares = 1) const;

  const std::string& path() const { return path_; }
  int64_t step() const { return manifest_.step; }
  const std::map<std::string, int64_t>& state() const { return manifest_.state; }
  const std::map<std::string, Manifest::StoredTensor>& tensors() const { return manifest_.tensors; }

  // A text file that went along ("config.textproto").
  absl::StatusOr<std::string> ReadTextFile(const std::string& name) const;

  // Fills `target.local` with the blocks that `target.pieces` name, whatever pieces they were saved
  // in. `target.first_replica` is not looked at.
  absl::Status Read(const CheckpointTensor& target) const;

  // XXH3-64 of the tensor's bytes in row-major order, whatever pieces they lie in.
  absl::StatusOr<uint64_t> WholeChecksum(const std::string& name) const;

 private:
  absl::Status CheckShards() const;
  absl::StatusOr<bool> IsFlatIn(int shard, const std::string& name) const;
  absl::StatusOr<const Manifest::StoredTensor*> Find(const std::string& name) const;
  std::span<const std::byte> BytesOf(const std::string& name,
                                     const Manifest::StoredPiece& piece) const;
  void ReadBlock(const std::string& name, const Manifest::StoredTensor& stored,
                 const std::vector<int64_t>& begin, const std::vector<int64_t>& end,
                 std::span<std::byte> into) const;

  std::string path_;
  Manifest manifest_;
  std::vector<SafetensorsFile> shards_;
};

struct NewestCheckpoint {
  CheckpointReader reader;
  std::vector<std::string> warnings;  // a line for each newer one that is damaged
};

// The newest good checkpoint of a directory, the same on all ranks, its bytes verified once among
// them; nothing if the directory has none at all. DataLoss: there are some, but none is good. A
// collective.
absl::StatusOr<std::optional<NewestCheckpoint>> OpenNewest(const std::string& directory,
                                                           const RankAgreement& ranks = {});

// One line per tensor in name order: name, dtype, global shape, checksum of the whole tensor.
// Verifies what it reads.
absl::StatusOr<std::string> InspectCheckpoint(const std::string& path);

}  // namespace moebius
