// Products with weights (kernels/linear.h) on the tape. The compute dtype is that of the input.
#pragma once

#include "core/tape/tape.h"

namespace moebius::ops {

// x [T, D], w [N, D] -> x w^T [T, N]
Var Linear(Tape& tape, const Var& x, Parameter* w);

// Where the R rows of a product stand, and which matrix each of them meets.
struct ProductRows {
  Tensor offsets = {};  // [e + 1] int32: of e matrices, as rows are grouped; undefined: of one
  Tensor tokens = {};   // [R] int32: row r is row tokens[r] of x; undefined: row r
};

// x [T, D], w [e, N, D], or [N, D] -> [R, N]
Var LinearOfRows(Tape& tape, const Var& x, const ProductRows& rows, Parameter* w);

// One matrix for each group of rows: rows [R, D] grouped by expert, offsets [e + 1] int32,
// w [e, N, D] -> [R, N]
inline Var GroupedLinear(Tape& tape, const Var& rows, const Tensor& offsets, Parameter* w) {
  return LinearOfRows(tape, rows, {.offsets = offsets}, w);
}

}  // namespace moebius::ops
