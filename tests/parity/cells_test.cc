// The matrix is what it says: all legal pairs of choices, in cells that differ.
#include "tests/parity/cells.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace moebius {
namespace {

TEST(Cells, TwoHundredHaveAllPairsOfChoices) {
  Coverage coverage;
  const std::vector<MatrixCell> cells = DrawCells(200, /*seed=*/1, &coverage);
  EXPECT_GT(coverage.of_pairs, 1000);
  EXPECT_EQ(coverage.pairs, coverage.of_pairs);
  std::set<std::string> names;
  for (const MatrixCell& cell : cells) names.insert(cell.name);
  EXPECT_EQ(names.size(), 200u);
}

TEST(Cells, SeedDecides) {
  const std::string name = DrawCells(3, 1).back().name;
  EXPECT_EQ(DrawCells(3, 1).back().name, name);
  EXPECT_NE(DrawCells(3, 2).back().name, name);
}

}  // namespace
}  // namespace moebius
