#include "core/placement/placement.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace moebius
