// The cells of the parity matrix: what is trained, and in which layout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/parity/parity_run.h"

namespace moebius {

struct MatrixCell {
  std::string name;   // its choices, "2 | 1 | learned": a row of a table
  Overrides trained;  // the same on one rank
  Layout layout;      // may not change a number
  Layout reference;   // one rank, that the cell is compared with
};

// `count` different legal cells, a function of the seed. Each is the one, of some that are drawn,
// that brings together the most pairs of choices that no cell before it has.
std::vector<MatrixCell> DrawCells(int count, uint64_t seed);

// `count` layouts in which `trained` can be trained, a function of the seed.
std::vector<Layout> DrawLayouts(const Overrides& trained, int count, uint64_t seed);

// The head of a table whose rows are a cell's name and Difference::ToString().
std::string CellHeader();

}  // namespace moebius
