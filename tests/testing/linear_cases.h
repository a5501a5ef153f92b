// What the tests of products are tried on.
#pragma once

#include <ostream>
#include <vector>

#include "core/tensor/context.h"

namespace moebius::test {

struct LinearCase {
  int64_t N, K;
  std::vector<int> rows;  // of each group; one group: dense

  int64_t num_groups() const { return std::ssize(rows); }
  int64_t num_rows() const;
  Tensor Offsets(Context& context) const;                       // [e + 1]
  Tensor TokensOfRows(Context& context, int64_t tokens) const;  // [R], ascending in each group
};

void PrintTo(const LinearCase& c, std::ostream* out);

// Odd sizes and multiples of 8, several panels, tiles and chunks, one row, empty groups, no rows,
// all rows in one group, many groups.
const std::vector<LinearCase>& LinearCases();

}  // namespace moebius::test
