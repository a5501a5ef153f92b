// Where the pieces of a tensor lie: a value that initialisation, reduction, checkpoints, resharding
// and planning read. An axis belongs to the mesh of ranks, a dimension to a tensor.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace moebius {

// The ranks of a pipeline stage are folded twice: dense = data x context x tensor, and expert =
// expert-data x expert x expert-tensor.
enum class Axis { kPipeline, kData, kContext, kTensor, kExpertData, kExpert, kExpertTensor };
inline constexpr int kNumAxes = 7;
const char* NameOf(Axis axis);  // "expert_data"

// The position of one rank on every axis.
struct MeshPosition {
  std::array<int, kNumAxes> index{};
  std::array<int, kNumAxes> size{1, 1, 1, 1, 1, 1, 1};

  int index_on(Axis axis) const { return index[static_cast<int>(axis)]; }
  int size_of(Axis axis) const { return size[static_cast<int>(axis)]; }
};

// A dimension cut over an axis: owner[i] is the position on the axis that holds index i of the
// dimension. A rank holds its indices in ascending order.
struct Cut {
  int dimension = 0;
  Axis axis = Axis::kTensor;
  std::vector<int> owner;
};

// Consecutive indices to each of `count` positions, as evenly as can be: the first size % count
// positions hold one more.
std::vector<int> EvenOwners(int64_t size, int count);

// How the gradient of a tensor arrives on an axis that replicates it: the same on every rank, or a
// part that must be summed.
enum class GradientArrives { kIdentical, kPartial };

struct Replication {
  Axis axis = Axis::kData;
  GradientArrives gradient = GradientArrives::kPartial;
};

// A block of the global tensor that stands contiguously, row-major, in a rank's local tensor from
// leading index `local_begin` on.
struct Piece {
  int64_t local_begin = 0;
  std::vector<int64_t> begin;  // [rank of the tensor]
  std::vector<int64_t> end;
  bool operator==(const Piece&) const = default;
};

struct Placement {
  Shape global_shape;
  std::vector<Cut> cuts;  // at most one a dimension; beyond the leading one in one run each
  std::vector<Replication> replicated;

  Shape LocalShape(const MeshPosition& at) const;
  std::vector<Piece> Pieces(const MeshPosition& at) const;  // in local order; none if empty

  // The blocks that elements [begin, end) of the row-major local tensor cover, in local order, each
  // as large as can be: at most 2 x rank - 1 for each of Pieces. Their local_begin counts elements
  // from `begin` on. What a rank holds that owns a share of a flat buffer of several tensors.
  std::vector<Piece> FlatPieces(const MeshPosition& at, int64_t begin, int64_t end) const;

  // Whether `at` is the rank that speaks for its piece: index 0 on every axis that replicates it.
  bool IsFirstReplica(const MeshPosition& at) const;
};

}  // namespace moebius
