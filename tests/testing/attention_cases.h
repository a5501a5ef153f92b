// What the tests of attention are tried on.
#pragma once

#include <ostream>
#include <vector>

#include "kernels/attention.h"

namespace moebius::test {

struct AttentionCase {
  kernels::AttentionShape shape;
  int mean_document;  // length; 0: no documents

  Tensor DocumentIds(Context& context) const;  // undefined without documents
};

void PrintTo(const AttentionCase& c, std::ostream* out);

// Odd sizes, shared heads, several tiles, documents short and long, padding at both ends of a
// sequence, chunks of queries, no sequences.
const std::vector<AttentionCase>& AttentionCases();

// With documents of this mean length, and padding.
Tensor DocumentIds(Context& context, const kernels::AttentionShape& shape, int mean_length);

// Sums of the magnitudes of the products that make up each result, in F64. `args` in F64, of which
// the results of the forward pass are read.
struct AttentionMagnitudes {
  Tensor y, dq, dk, dv;
};
AttentionMagnitudes MagnitudesOf(const kernels::AttentionGradientArgs& args, Context& context);

}  // namespace moebius::test
