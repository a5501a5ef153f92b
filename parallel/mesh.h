// The ranks as a mesh. The ranks of a pipeline stage are folded twice, independently: dense = data
// x context x tensor, and expert = expert-data x expert x expert-tensor ("parallel folding": Liu et
// al., 2025, arXiv 2504.14960). The axes named last lie closest: consecutive ranks share a tensor,
// or the experts of a layer; pipeline stages lie farthest apart.
//
// 8 ranks, 2 pipeline stages, expert_size 2:
//   rank          0  1  2  3 | 4  5  6  7
//   pipeline      0  0  0  0 | 1  1  1  1
//   data          0  1  2  3 | 0  1  2  3
//   expert        0  1  0  1 | 0  1  0  1
//   expert_data   0  0  1  1 | 0  0  1  1
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/placement/placement.h"
#include "parallel/communicator.h"

namespace moebius {

// Data and expert-data are what remains of the ranks.
struct ParallelSizes {
  int tensor = 1;
  int pipeline = 1;
  int context = 1;
  int expert = 1;
  int expert_tensor = 1;
};

// Where `rank` stands. InvalidArgument, naming the fields of ParallelConfig, if the sizes do not
// divide the ranks.
absl::StatusOr<MeshPosition> PositionOf(const ParallelSizes& sizes, int rank, int num_ranks);

class Mesh {
 public:
  // Every rank of the world calls it; all groups are made now, in one order. `world` outlives the
  // mesh. `accelerator`: the rank's, if it has one; its memory may be sent then.
  static absl::StatusOr<std::unique_ptr<Mesh>> Create(
      const ParallelSizes& sizes, Communicator& world,
      const std::shared_ptr<Accelerator>& accelerator = nullptr);

  const MeshPosition& position() const { return position_; }
  Communicator& world() { return staged_ != nullptr ? *staged_ : world_; }

  // The ranks that differ from this one on `axis` alone, in order of their index on it.
  Communicator& group(Axis axis) { return group_over({axis}); }

  // The ranks that differ from this one on these axes alone. REQUIRES: at most one of them is
  // longer than 1, or they are neighbours in a fold (pipeline, data and context; data and
  // context; context and tensor; expert and expert-tensor), or all of a fold.
  Communicator& group_over(const std::vector<Axis>& axes);

 private:
  using AxisSet = unsigned;  // a bit for each axis

  Mesh(const ParallelSizes& sizes, const MeshPosition& position, Communicator& world,
       std::unique_ptr<Communicator> staged)
      : sizes_(sizes), position_(position), world_(world), staged_(std::move(staged)) {}

  AxisSet Canonical(const std::vector<Axis>& axes) const;
  void MakeGroup(const std::vector<Axis>& axes);

  const ParallelSizes sizes_;
  const MeshPosition position_;
  Communicator& world_;
  const std::unique_ptr<Communicator> staged_;  // the world with an accelerator's memory, or null
  std::map<AxisSet, std::unique_ptr<Communicator>> groups_;
};

}  // namespace moebius
