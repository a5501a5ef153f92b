// What the tests of products are tried on.
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <vector>

#include "core/tensor/context.h"
#include "tests/testing/random_tensors.h"

namespace moebius::test {

// Standard normal values of a dtype, and the same values in F64.
struct Values {
  Tensor tensor, exact;
};

inline Values Normal(Context& context, DType dtype, const Shape& shape, const char* name) {
  const Tensor x = RandomTensor(context, dtype, shape, name);
  return {x, Convert(context, x, DType::kF64)};
}

struct LinearCase {
  int64_t N, K;
  std::vector<int> rows;  // of each group; one group: dense
};

inline void PrintTo(const LinearCase& c, std::ostream* out) {
  *out << "[" << c.N << ", " << c.K << "] over " << testing::PrintToString(c.rows);
}

// Odd sizes, several panels and chunks, one row, empty groups, no rows, all rows in one group.
inline const LinearCase kLinearCases[] = {
    {1, 1, {1}},      {33, 5, {7}},         {64, 256, {130}},        {31, 515, {29}},
    {70, 1031, {3}},  {5, 7, {0}},          {17, 33, {5, 0, 1, 40}}, {48, 9, {0, 0, 140, 0}},
    {40, 24, {0, 0}}, {256, 96, {15, 300}}, {600, 40, {130}},
};

}  // namespace moebius::test
