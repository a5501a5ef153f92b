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

// Tokens of a step, padding included.
int64_t StepTokens(const MatrixCell& cell);

// Two choices of different options.
struct Coverage {
  int64_t pairs = 0;     // that some cell has
  int64_t of_pairs = 0;  // that a legal cell can have
};

// `count` different legal cells, a function of the seed. Each is the one, of some that are drawn
// around a pair that no cell before it has, that has the most such pairs.
std::vector<MatrixCell> DrawCells(int count, uint64_t seed, Coverage* coverage = nullptr);

// What resuming and ranks that are processes train: dense layers, experts and a shared table, so
// that every option of a layout cuts something.
extern const Overrides kCutEverywhere;

// `count` layouts in which `trained` can be trained, a function of the seed.
std::vector<Layout> DrawLayouts(const Overrides& trained, int count, uint64_t seed);

// The head of a table whose rows are a cell's name and `columns`, "curve | state".
std::string CellHeader(const std::string& columns);

}  // namespace moebius
