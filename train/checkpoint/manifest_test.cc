#include "train/checkpoint/manifest.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace moebius {
namespace {

using Range = std::pair<std::vector<int64_t>, std::vector<int64_t>>;  // begin, end

std::string Complaint(const Shape& shape, const std::vector<Range>& pieces) {
  Manifest manifest;
  Manifest::StoredTensor& tensor = manifest.tensors["weight"];
  tensor.shape = shape;
  for (const auto& [begin, end] : pieces) tensor.pieces.push_back({.block = {0, begin, end}});
  return std::string(manifest.CheckComplete("manifest").message());
}

constexpr char kOverlap[] = "manifest: tensor 'weight': two pieces overlap";

TEST(ManifestCheck, TakesWhatCoversEveryElementOnce) {
  EXPECT_EQ(Complaint({}, {{{}, {}}}), "");
  EXPECT_EQ(Complaint({0, 4}, {}), "");
  EXPECT_EQ(Complaint({7}, {{{3}, {7}}, {{0}, {3}}}), "");
  // A pinwheel: no cut goes through all of it.
  EXPECT_EQ(Complaint({3, 3}, {{{0, 0}, {1, 2}},
                               {{0, 2}, {2, 3}},
                               {{2, 1}, {3, 3}},
                               {{1, 0}, {3, 1}},
                               {{1, 1}, {2, 2}}}),
            "");
  EXPECT_EQ(Complaint({2, 3, 2}, {{{0, 0, 0}, {1, 3, 2}},
                                  {{1, 0, 0}, {2, 1, 2}},
                                  {{1, 1, 0}, {2, 3, 1}},
                                  {{1, 1, 1}, {2, 3, 2}}}),
            "");
}

TEST(ManifestCheck, RefusesGapsAndOverlaps) {
  EXPECT_EQ(Complaint({}, {}), "manifest: tensor 'weight': the pieces hold 0 of 1 elements");
  EXPECT_EQ(Complaint({}, {{{}, {}}, {{}, {}}}), kOverlap);
  EXPECT_EQ(Complaint({4, 2}, {{{0, 0}, {3, 2}}}),
            "manifest: tensor 'weight': the pieces hold 6 of 8 elements");
  EXPECT_EQ(Complaint({4, 2}, {{{0, 0}, {3, 2}}, {{2, 0}, {4, 2}}}), kOverlap);
  // As many elements as there are, but not each once.
  EXPECT_EQ(Complaint({4, 2}, {{{0, 0}, {2, 2}}, {{1, 0}, {3, 2}}}), kOverlap);
  EXPECT_EQ(Complaint({2, 2}, {{{0, 0}, {1, 2}}, {{0, 0}, {1, 2}}}), kOverlap);
  EXPECT_EQ(Complaint({2, 2, 2}, {{{0, 0, 0}, {1, 1, 2}},
                                  {{0, 1, 0}, {1, 2, 2}},
                                  {{1, 0, 0}, {2, 2, 1}},
                                  {{1, 0, 0}, {2, 2, 1}}}),
            kOverlap);
}

// Hundreds of ranks with a few pieces each.
TEST(ManifestCheck, TakesManyPieces) {
  constexpr int64_t kRows = 400, kColumns = 100;
  std::vector<Range> pieces;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kColumns; ++column) {
      pieces.push_back({{row, column}, {row + 1, column + 1}});
    }
  }
  EXPECT_EQ(Complaint({kRows, kColumns}, pieces), "");
  pieces.back() = pieces.front();
  EXPECT_EQ(Complaint({kRows, kColumns}, pieces), kOverlap);
}

}  // namespace
}  // namespace moebius
