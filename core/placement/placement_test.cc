#include "core/placement/placement.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moebius {
namespace {

MeshPosition At(Axis axis, int index, int size) {
  MeshPosition at;
  at.index[static_cast<int>(axis)] = index;
  at.size[static_cast<int>(axis)] = size;
  return at;
}

TEST(Placement, UncutIsOnePiece) {
  const Placement placement{.global_shape = {3, 4}, .cuts = {}, .replicated = {{Axis::kData}}};
  EXPECT_EQ(placement.LocalShape(At(Axis::kData, 1, 2)), (Shape{3, 4}));
  EXPECT_EQ(placement.Pieces({}), (std::vector<Piece>{{0, {0, 0}, {3, 4}}}));
  EXPECT_TRUE(placement.IsFirstReplica(At(Axis::kData, 0, 2)));
  EXPECT_FALSE(placement.IsFirstReplica(At(Axis::kData, 1, 2)));
}

TEST(Placement, EvenCutOfTheLeadingDimension) {
  const Placement placement{
      .global_shape = {8, 5}, .cuts = {{0, Axis::kExpert, EvenOwners(8, 4)}}, .replicated = {}};
  const MeshPosition at = At(Axis::kExpert, 2, 4);
  EXPECT_EQ(placement.LocalShape(at), (Shape{2, 5}));
  EXPECT_EQ(placement.Pieces(at), (std::vector<Piece>{{0, {4, 0}, {6, 5}}}));
}

TEST(Placement, ScatteredExpertsGiveSeveralPieces) {
  const Placement placement{
      .global_shape = {4, 2}, .cuts = {{0, Axis::kExpert, {0, 1, 0, 0}}}, .replicated = {}};
  EXPECT_EQ(placement.Pieces(At(Axis::kExpert, 0, 2)),
            (std::vector<Piece>{{0, {0, 0}, {1, 2}}, {1, {2, 0}, {4, 2}}}));
}

TEST(Placement, WithoutElementsThereIsNoPiece) {
  const Placement placement{.global_shape = {0, 4}, .cuts = {}, .replicated = {}};
  EXPECT_TRUE(placement.Pieces({}).empty());
}

TEST(Placement, CutOfTheSecondDimension) {
  const Placement placement{
      .global_shape = {3, 6}, .cuts = {{1, Axis::kTensor, EvenOwners(6, 3)}}, .replicated = {}};
  const MeshPosition at = At(Axis::kTensor, 1, 3);
  EXPECT_EQ(placement.LocalShape(at), (Shape{3, 2}));
  EXPECT_EQ(placement.Pieces(at), (std::vector<Piece>{{0, {0, 2}, {3, 4}}}));
}

TEST(Placement, ARankMayHoldNothing) {
  const Placement placement{
      .global_shape = {2, 2}, .cuts = {{0, Axis::kExpert, {1, 1}}}, .replicated = {}};
  EXPECT_EQ(placement.LocalShape(At(Axis::kExpert, 0, 2)), (Shape{0, 2}));
  EXPECT_TRUE(placement.Pieces(At(Axis::kExpert, 0, 2)).empty());
}

// ---- Flat ranges -------------------------------------------------------------------------------

// Calls visit(index) for every index of a block, in row-major order.
template <class Visit>
void ForEachIndex(const Piece& block, const Visit& visit) {
  std::vector<int64_t> at = block.begin;
  while (true) {
    visit(at);
    size_t d = at.size();
    while (d > 0 && ++at[d - 1] == block.end[d - 1]) {
      at[d - 1] = block.begin[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

using Indices = std::vector<std::vector<int64_t>>;

Indices IndicesOf(const std::vector<Piece>& blocks) {
  Indices indices;
  for (const Piece& block : blocks) {
    ForEachIndex(block, [&](const std::vector<int64_t>& at) { indices.push_back(at); });
  }
  return indices;
}

// Every range of every rank's share, element by element.
TEST(FlatPieces, CoverExactlyTheElementsOfTheRange) {
  const Placement placements[] = {
      {.global_shape = {}, .cuts = {}, .replicated = {}},
      {.global_shape = {7}, .cuts = {}, .replicated = {}},
      {.global_shape = {6}, .cuts = {{0, Axis::kExpert, {0, 1, 1, 0, 0, 1}}}, .replicated = {}},
      {.global_shape = {4, 5}, .cuts = {}, .replicated = {}},
      {.global_shape = {1, 6}, .cuts = {}, .replicated = {}},
      {.global_shape = {5, 1, 2}, .cuts = {}, .replicated = {}},
      {.global_shape = {3, 6}, .cuts = {{1, Axis::kTensor, EvenOwners(6, 2)}}, .replicated = {}},
      {.global_shape = {5, 2, 3}, .cuts = {{0, Axis::kExpert, {0, 1, 0, 0, 1}}}, .replicated = {}},
      {.global_shape = {4, 3, 4},
       .cuts = {{0, Axis::kExpert, {1, 0, 1, 0}}, {2, Axis::kTensor, EvenOwners(4, 2)}},
       .replicated = {}},
      {.global_shape = {2, 2, 2, 3}, .cuts = {}, .replicated = {}},
      {.global_shape = {3, 0}, .cuts = {}, .replicated = {}},
  };
  for (const Placement& placement : placements) {
    for (int index = 0; index < 2; ++index) {
      MeshPosition at = At(Axis::kExpert, index, 2);
      at.index[static_cast<int>(Axis::kTensor)] = index;
      const std::vector<Piece> whole = placement.Pieces(at);
      const Indices all = IndicesOf(whole);
      const auto size = static_cast<int64_t>(all.size());
      const size_t most = whole.size() * std::max(2 * placement.global_shape.rank() - 1, 1);
      for (int64_t begin = 0; begin <= size; ++begin) {
        for (int64_t end = begin; end <= size; ++end) {
          const std::vector<Piece> blocks = placement.FlatPieces(at, begin, end);
          EXPECT_EQ(IndicesOf(blocks), Indices(all.begin() + begin, all.begin() + end))
              << placement.global_shape << " " << begin << " " << end;
          EXPECT_LE(blocks.size(), most);
          int64_t local = 0;
          for (const Piece& block : blocks) {
            EXPECT_EQ(block.local_begin, local);
            local += static_cast<int64_t>(IndicesOf({block}).size());
          }
        }
      }
    }
  }
}

TEST(FlatPieces, AreAsLargeAsCanBe) {
  const Placement placement{.global_shape = {4, 5}, .cuts = {}, .replicated = {}};
  EXPECT_EQ(placement.FlatPieces({}, 0, 20), (std::vector<Piece>{{0, {0, 0}, {4, 5}}}));
  EXPECT_EQ(placement.FlatPieces({}, 6, 8), (std::vector<Piece>{{0, {1, 1}, {2, 3}}}));
  EXPECT_EQ(placement.FlatPieces({}, 3, 16),
            (std::vector<Piece>{{0, {0, 3}, {1, 5}}, {2, {1, 0}, {3, 5}}, {12, {3, 0}, {4, 1}}}));
}

}  // namespace
}  // namespace moebius
