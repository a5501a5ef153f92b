// Rows to the ranks that own their experts, and back. The backward of each direction is the other.
// Letters: P rows of this rank in the grouped order of its routing plan, R rows that this rank's
// experts get, E experts, e experts of this rank, D row width.
//
// An expert may be cut over several ranks, side by side in the communicator (expert-tensor): a row
// then goes to each of them, and what comes back is the sum of their results, in rank order.
#pragma once

#include <span>

#include "core/tape/tape.h"
#include "parallel/communicator.h"
#include "parallel/ops/rows_under_way.h"

namespace moebius {

// Where rows go and stand: agreed once for a plan, used in both directions, forward and backward.
// Received rows are ordered by expert, within an expert by source rank, within a rank as sent: not
// by when they arrive. int32 tensors; a copy shares them. The counts that ranks agree on are the
// host's, which waits for a device to count.
struct Exchange {
  // One side: the rows as its owner orders them, and how they stand in messages.
  struct Side {
    int64_t num_rows = 0;
    int copies = 1;  // of each row, in messages
    Tensor counts;   // [ranks] rows to (from) each rank; of the host, as are the blocks
    // [blocks, 3] first row, first row in messages, rows: first one copy of all rows, then the
    // next. Undefined: rows stand in messages as they do here.
    Tensor blocks;
  };
  Side senders;          // P rows
  Side experts;          // R rows
  Tensor local_offsets;  // [e + 1] of the R rows, by local expert; on the device
};

// expert_offsets [E + 1] int32: this rank's rows, grouped by expert (RoutingPlan). Expert j is on
// the ranks owner[j] * copies .. + copies of the communicator; a rank orders its experts by j.
// Ranks without experts, experts without rows and no rows at all are ordinary. Collective: tell the
// tape to decide it Once. On kMeta routing is taken to be even: R = P * copies.
Exchange MakeExchange(const Tensor& expert_offsets, std::span<const int> owner, int copies,
                      Communicator& communicator, Context& context);

// rows [P, D] -> [R, D]; any float dtype. The communicator is that of MakeExchange and outlives the
// tape. Free when it has one rank: `rows` itself.
RowsUnderWay ToExperts(Tape& tape, const Var& rows, const Exchange& exchange,
                       Communicator* communicator);

// local [R, D] -> [P, D]
RowsUnderWay FromExperts(Tape& tape, const Var& local, const Exchange& exchange,
                         Communicator* communicator);

}  // namespace moebius
