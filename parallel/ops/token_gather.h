// The tokens of all ranks of a group to each of them, and the sums of what their experts make of
// them back to their owners: dispatch by all-gather. A rank's experts read and add up by a
// plan of their own pairs with the tokens of all. The backward of each direction is the other.
// Letters: T tokens and P pairs of this rank, A tokens of all ranks with their padding, R pairs of
// this rank's experts, E experts, e experts of this rank, D row width.
//
// An expert may be cut over several ranks (expert-tensor): each of them has its pairs, and their
// parts of a result are added up with those of the other experts.
#pragma once

#include <span>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
#include "parallel/communicator.h"
#include "parallel/ops/rows_under_way.h"

namespace moebius {

// Agreed once for a plan, used in both directions, forward and backward. Each rank is given as much
// room as the one with most needs: A = ranks * max_tokens. What is left of it is padding, zero in
// messages, that no pair names.
struct TokenGather {
  int64_t max_tokens = 0;  // of any rank of the group
  int64_t max_pairs = 0;
  RoutingPlan plan;  // A tokens, e experts, R pairs: by rank, within a rank by token
  Tensor pair;  // [R] int32, of the host: each among the pairs of all ranks [ranks * max_pairs]
};

// plan: this rank's tokens and all E experts. Expert j is on the ranks owner[j] * copies .. +
// copies of the communicator; a rank orders its experts by j. Ranks without tokens or experts,
// experts without tokens and no tokens at all are ordinary. For one rank the plan is the plan.
// Collective: tell the tape to decide it Once. On kMeta routing is taken to be even: R = P *
// copies.
TokenGather MakeTokenGather(const RoutingPlan& plan, std::span<const int> owner, int copies,
                            Communicator& communicator, Context& context);

// All ops: F64, F32, BF16. Collective. The communicator is that of MakeTokenGather and outlives the
// tape. Free when it has one rank: what comes in comes out. On kMeta shapes alone, without the
// other ranks. Sums over ranks are taken in rank order (BF16: see communicator.h).

// x [T, D] -> [A, D]
RowsUnderWay GatherTokens(Tape& tape, const Var& x, const TokenGather& gather,
                          Communicator* communicator);

// The weights of this rank's pairs.  weights [P] -> [R]
Var GatherWeights(Tape& tape, const Var& weights, const TokenGather& gather,
                  Communicator* communicator);

// parts [A, D], of a sum over the ranks -> the sums of this rank's tokens [num_tokens, D]
RowsUnderWay ScatterTokens(Tape& tape, const Var& parts, int64_t num_tokens,
                           Communicator* communicator);

}  // namespace moebius
