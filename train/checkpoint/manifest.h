// manifest.json of a checkpoint (docs/formats/checkpoint.md) as a value. The list of pieces that a
// rank leaves for rank 0 to join is the same value with one shard.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/placement/placement.h"
#include "core/tensor/tensor.h"

namespace moebius {

struct Manifest {
  struct File {
    int64_t bytes = 0;
    uint64_t checksum = 0;
  };
  struct Shard {
    std::string file;
    int64_t bytes = 0;
  };
  struct StoredPiece {
    int shard = 0;  // index of `shards`
    Piece block;    // local_begin: the row of the shard's tensor
    uint64_t checksum = 0;
  };
  struct StoredTensor {
    DType dtype = DType::kF32;
    Shape shape;  // global
    std::vector<StoredPiece> pieces;
  };

  int64_t step = 0;
  std::map<std::string, int64_t> state;
  std::map<std::string, File> files;
  std::vector<Shard> shards;
  std::map<std::string, StoredTensor> tensors;

  std::string ToText() const;

  // `path` is for messages. DataLoss: the checksum, or what a number or name says, is not right.
  static absl::StatusOr<Manifest> FromText(const std::string& text, const std::string& path);

  // Adds what another rank has written. DataLoss: the two disagree about a tensor.
  absl::Status Join(const Manifest& other);

  // DataLoss unless the pieces of each tensor cover each of its elements once.
  absl::Status CheckComplete(const std::string& path) const;
};

}  // namespace moebius
