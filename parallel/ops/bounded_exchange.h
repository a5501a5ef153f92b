// The exchange of exchange.h with messages of a fixed length: every rank sends C rows to every
// rank, of which the first ones count (kernels/row_slots.h). How many those are is the device's
// alone: the host of an accelerator waits for nothing. What arrives, its order and its bits are
// those of the exact exchange, as long as no rank has more than C rows for another: where one has,
// a flag is raised on the device, and what comes out is good for nothing.
// Letters: n ranks, P rows of this rank in the grouped order of its routing plan, E experts, e
// experts of this rank, D row width.
#pragma once

#include <span>

#include "core/tape/tape.h"
#include "parallel/communicator.h"
#include "parallel/ops/rows_under_way.h"

namespace moebius {

// What the ranks of a group agree on beforehand.
struct ExchangeBound {
  int64_t capacity = 0;  // C; the same on all of them
  Tensor overflow;       // [1] F64 on the device: becomes 1 where rows of this rank lack room
};

// Agreed once for a plan, used in both directions, forward and backward; int32 on the device.
struct BoundedExchange {
  int64_t capacity = 0;  // C
  int64_t num_rows = 0;  // P
  int64_t copies = 1;    // of each row, in messages
  Tensor sent;           // [P]    kernels::RowSlotsArgs has these three
  Tensor received;       // [n, C]
  Tensor local_offsets;  // [e + 1]: of n * C rows by local expert; those behind the last hold none
};

// expert_offsets [E + 1] int32: this rank's `num_rows` rows, grouped by expert (RoutingPlan).
// Expert j is on the ranks owner[j] * copies .. + copies of the communicator; owners ascend: the
// experts of a rank stand side by side. Ranks without experts, experts without rows and no rows at
// all are ordinary, and so is one rank. Collective: tell the tape to decide it Once.
BoundedExchange MakeBoundedExchange(const Tensor& expert_offsets, int64_t num_rows,
                                    std::span<const int> owner, int copies,
                                    const ExchangeBound& bound, Communicator& communicator,
                                    Context& context);

// rows [P, D] -> [n * C, D]; any float dtype. The communicator is that of MakeBoundedExchange and
// outlives the tape. Rows behind local_offsets stay as memory was, as their gradients may.
RowsUnderWay ToExperts(Tape& tape, const Var& rows, const BoundedExchange& exchange,
                       Communicator* communicator);

// local [n * C, D] -> [P, D], the sum of what copies of a row became, in rank order.
RowsUnderWay FromExperts(Tape& tape, const Var& local, const BoundedExchange& exchange,
                         Communicator* communicator);

}  // namespace moebius
