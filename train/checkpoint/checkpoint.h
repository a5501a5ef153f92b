// What goes into a checkpoint and where checkpoints lie. The format and its promises stand in
// docs/formats/checkpoint.md; writing in checkpoint_writer.h, reading in checkpoint_reader.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/placement/parameter.h"
#include "core/placement/placement.h"
#include "core/tensor/tensor.h"

namespace moebius {

// One rank's share of a named tensor: to be saved, or to be filled.
struct CheckpointTensor {
  std::string name;
  Shape global_shape;
  std::vector<Piece> pieces;  // where the rows of `local` stand in the global tensor; may be empty
  Tensor local;               // or flat, [elements]: see FirstElement in blocks.h
  bool first_replica = true;  // false: another rank saves the same pieces
};

// The share of the rank at `at` of a tensor placed like `placement`: a parameter's value, or an
// optimizer moment of the same shape under another name.
CheckpointTensor PlacedTensor(const std::string& name, const Placement& placement,
                              const MeshPosition& at, const Tensor& local);

// Of that share, elements [begin, end) alone, which `local` holds: what a rank updates where an
// optimizer is sharded.
CheckpointTensor PartTensor(const std::string& name, const Placement& placement,
                            const MeshPosition& at, int64_t begin, int64_t end, const Tensor& local,
                            bool first_replica);

// A tensor that several ranks hold whole, as a pipeline stage does its buffers. Number 0 of them
// saves it.
CheckpointTensor ReplicatedTensor(const std::string& name, const Tensor& value, int rank);

struct CheckpointContent {
  int64_t step = 0;                          // updates made so far
  std::map<std::string, int64_t> state;      // what else training needs to go on
  std::map<std::string, std::string> files;  // text that goes along: name -> content; of rank 0
  std::vector<CheckpointTensor> tensors;
};

// How the ranks of a run agree. `max` returns the largest of the values that all ranks pass: a
// collective, called from the thread that trains. The default is a single rank.
struct RankAgreement {
  int rank = 0;
  int world_size = 1;
  std::function<int64_t(int64_t)> max = [](int64_t value) { return value; };
  // One outcome for all, with the words of a rank that failed. Without it `max` names that rank.
  std::function<absl::Status(const absl::Status&)> agree = nullptr;
};

// OK if it is OK on all ranks; else the rank's own error, or the number of a rank that has one.
absl::Status AgreeOn(const absl::Status& own, const RankAgreement& ranks);

struct CheckpointFolder {
  int64_t step = 0;
  std::string path;
};

std::string CheckpointName(int64_t step);  // "step-00000100"

// The folders of `directory` that are named like checkpoints, good or bad, newest first. Empty if
// there is no such directory.
absl::StatusOr<std::vector<CheckpointFolder>> FindCheckpoints(const std::string& directory);

}  // namespace moebius
