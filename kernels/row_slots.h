// Rows in messages of a fixed length, where only the device knows how many there are. Ranks send
// each other blocks of C slots, of which the first ones hold rows; nobody reads the others.
// Letters: n ranks, E experts, e experts of this rank, P rows of this rank, R rows that its experts
// get, D row width.
//
// Example, n = 2, an expert a rank, C = 2; rank 0 has 1 row for expert 0 and 3 rows for expert 1:
//   sent = 0 2 3 -1    its last row finds no slot: overflow
// Rank 1 has 1 row for each. Of what rank 1 receives, in the blocks of rank 0 and of rank 1:
//   received = 0 1 2 -1    local_offsets = 0 3
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// Rows are grouped by expert, on every rank. Each expert is on `copies` ranks side by side, and so
// are the experts of a rank: ranks o * copies .. + copies have experts first_experts[o] ..
// first_experts[o + 1], which may be none.
struct RowSlotsArgs {
  Tensor expert_offsets;  // [n, E + 1] int32: of each rank's rows (RoutingPlan)
  Tensor first_experts;   // [n / copies + 1] int32, ascending from 0 to E
  int64_t rank;           // this one
  int64_t copies;

  // What is found, int32. A slot counts from the first one of all blocks.
  Tensor sent;           // [P]: where a row stands in the blocks for the first copy; -1: nowhere
  Tensor received;       // [n, C]: which of the R rows stands in a slot; -1: none
  Tensor local_offsets;  // [e + 1]: of the R rows, by expert, then by source, then as sent
  Tensor overflow;       // [1] F64: becomes 1 where a row stands nowhere, else stays
};
void RowSlots(const RowSlotsArgs& args, Context& ctx);

// y[at[i] + c * step, :] = x[i, :] for every c < copies. at [rows of x] int32; where it is below
// zero the row goes nowhere. All rows of y that at does not name stay.  One float dtype.
struct ScatterRowsArgs {
  Tensor x, at, y;
  int64_t copies = 1, step = 0;
};
void ScatterRows(const ScatterRowsArgs& args, Context& ctx);

// y[i, :] = the sum of x[at[i] + c * step, :] over c < copies, in their order; BF16 is added up in
// F32 and rounded once. at [rows of y] int32; where it is below zero the row of y stays.
struct GatherRowsArgs {
  Tensor x, at, y;
  int64_t copies = 1, step = 0;
};
void GatherRows(const GatherRowsArgs& args, Context& ctx);

}  // namespace moebius::kernels
