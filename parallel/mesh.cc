#include "parallel/mesh.h"

#include <algorithm>
#include <utility>

#include "parallel/staged_communicator.h"

namespace moebius {
namespace {

// Farthest ranks first.
constexpr Axis kDenseFold[] = {Axis::kPipeline, Axis::kData, Axis::kContext, Axis::kTensor};
constexpr Axis kExpertFold[] = {Axis::kPipeline, Axis::kExpertData, Axis::kExpert,
                                Axis::kExpertTensor};

constexpr unsigned Bit(Axis axis) { return 1u << static_cast<int>(axis); }

// Indices of `rank` in a fold whose sizes are set.
void Fold(std::span<const Axis> fold, int rank, MeshPosition& at) {
  for (auto axis = fold.rbegin(); axis != fold.rend(); ++axis) {
    const int size = at.size_of(*axis);
    at.index[static_cast<int>(*axis)] = rank % size;
    rank /= size;
  }
}

// What is left of `ranks` when `inner` of them stand side by side.
absl::StatusOr<int> Rest(int ranks, int inner, const char* fields, const char* of) {
  if (inner >= 1 && ranks % inner == 0) return ranks / inner;
  return absl::InvalidArgumentError(
      absl::StrCat(fields, ": ", inner, " does not divide the ", ranks, " ranks of ", of));
}

}  // namespace

absl::StatusOr<MeshPosition> PositionOf(const ParallelSizes& sizes, int rank, int num_ranks) {
  ASSIGN_OR_RETURN(const int stage,
                   Rest(num_ranks, sizes.pipeline, "parallel.pipeline_size", "this job"));
  ASSIGN_OR_RETURN(const int data,
                   Rest(stage, sizes.context * sizes.tensor,
                        "parallel.context_size x parallel.tensor_size", "a pipeline stage"));
  ASSIGN_OR_RETURN(const int expert_data,
                   Rest(stage, sizes.expert * sizes.expert_tensor,
                        "parallel.expert_size x parallel.expert_tensor_size", "a pipeline stage"));
  MeshPosition at;
  for (const auto& [axis, size] : {std::pair(Axis::kPipeline, sizes.pipeline),
                                   {Axis::kData, data},
                                   {Axis::kContext, sizes.context},
                                   {Axis::kTensor, sizes.tensor},
                                   {Axis::kExpertData, expert_data},
                                   {Axis::kExpert, sizes.expert},
                                   {Axis::kExpertTensor, sizes.expert_tensor}}) {
    at.size[static_cast<int>(axis)] = size;
  }
  Fold(kDenseFold, rank, at);
  Fold(kExpertFold, rank, at);
  return at;
}

absl::StatusOr<std::unique_ptr<Mesh>> Mesh::Create(
    const ParallelSizes& sizes, Communicator& world,
    const std::shared_ptr<Accelerator>& accelerator) {
  ASSIGN_OR_RETURN(const MeshPosition at, PositionOf(sizes, world.rank(), world.size()));
  std::unique_ptr<Communicator> staged;
  if (accelerator != nullptr && !world.Takes(*accelerator)) {
    staged = std::make_unique<StagedCommunicator>(world, accelerator);
  }
  auto mesh = std::unique_ptr<Mesh>(new Mesh(sizes, at, world, std::move(staged)));
  for (int axis = 0; axis < kNumAxes; ++axis) mesh->MakeGroup({static_cast<Axis>(axis)});
  mesh->MakeGroup({Axis::kContext, Axis::kTensor});
  mesh->MakeGroup({Axis::kExpert, Axis::kExpertTensor});
  mesh->MakeGroup({Axis::kData, Axis::kContext});
  mesh->MakeGroup({Axis::kData, Axis::kContext, Axis::kTensor});
  mesh->MakeGroup({Axis::kPipeline, Axis::kData, Axis::kContext});
  return mesh;
}

// Axes of size 1 do not count, and the whole of either fold is the same ranks.
Mesh::AxisSet Mesh::Canonical(const std::vector<Axis>& axes) const {
  constexpr AxisSet kDense = Bit(Axis::kData) | Bit(Axis::kContext) | Bit(Axis::kTensor);
  constexpr AxisSet kExpert =
      Bit(Axis::kExpertData) | Bit(Axis::kExpert) | Bit(Axis::kExpertTensor);
  AxisSet set = 0, longer = 0;
  for (const Axis axis : axes) set |= Bit(axis);
  for (int axis = 0; axis < kNumAxes; ++axis) {
    if (position_.size[axis] > 1) longer |= Bit(static_cast<Axis>(axis));
  }
  set &= longer;
  if ((set & kExpert) != 0 && (set & kExpert) == (longer & kExpert)) {
    set = (set & ~kExpert) | (longer & kDense);
  }
  return set;
}

void Mesh::MakeGroup(const std::vector<Axis>& axes) {
  const AxisSet set = Canonical(axes);
  if (groups_.contains(set)) return;
  AxisSet expert_axes = 0;
  for (const Axis axis : kExpertFold) expert_axes |= Bit(axis);
  const bool is_expert = set != 0 && (set & expert_axes & ~Bit(Axis::kPipeline)) != 0;
  const auto shares_group = [&](const MeshPosition& other) {
    return std::ranges::all_of(is_expert ? kExpertFold : kDenseFold, [&](Axis axis) {
      return (set & Bit(axis)) != 0 || other.index_on(axis) == position_.index_on(axis);
    });
  };
  std::vector<int> ranks;
  for (int r = 0; r < world_.size(); ++r) {
    if (shares_group(*PositionOf(sizes_, r, world_.size()))) ranks.push_back(r);
  }
  std::string name;
  for (const Axis axis : axes) absl::StrAppend(&name, name.empty() ? "" : " x ", NameOf(axis));
  groups_[set] = world().Split(ranks, set == 0 ? "self" : name);
}

Communicator& Mesh::group_over(const std::vector<Axis>& axes) {
  const auto found = groups_.find(Canonical(axes));
  CHECK(found != groups_.end()) << "no group was made over these axes";
  return *found->second;
}

}  // namespace moebius
