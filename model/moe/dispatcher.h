// Brings tokens to the experts that are chosen for them, and what these make of them back. Both
// ways agree to rounding:
//   all-to-all   a token's row travels once to each of its experts, and each result back: K rows a
//                token each way.
//   all-gather   every rank of the expert group gets the tokens of all, runs its experts' pairs,
//                and sends every token's owner one row, its part of the weighted sum: as many rows
//                a token as there are ranks, whatever K, and messages of equal length.
// Letters: T tokens of the shard, P pairs, R rows of this rank's experts, e experts of this rank.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
#include "parallel/mesh.h"
#include "parallel/ops/exchange.h"
#include "parallel/ops/token_gather.h"

namespace moebius {

// What a layer decides once for a micro-batch; a replay meets it again.
struct Routing {
  RoutingPlan plan;                         // of this rank's tokens
  std::variant<Exchange, TokenGather> way;  // by the dispatcher
};

enum class DispatcherKind { kAllToAll, kAllGather };

class Dispatcher {
 public:
  // owner[i]: the position on the expert axis that holds expert i. The mesh outlives it.
  static std::unique_ptr<Dispatcher> Create(DispatcherKind kind, std::vector<int> owner,
                                            Mesh& mesh);
  virtual ~Dispatcher() = default;

  // Agrees with the other ranks of the expert group. Collective: tell the tape to decide it Once.
  virtual Routing Agree(RoutingPlan plan, Context& context) const = 0;

  // [e + 1]: which of the R rows are whose.
  virtual Tensor ExpertOffsets(const Routing& routing) const = 0;

  // weights [P] of this rank's tokens -> the weights that Combine takes
  virtual Var CombineWeights(Tape& tape, const Var& weights, const Routing& routing) const = 0;

  // x [T, D] -> [R, D] grouped by this rank's experts
  virtual RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const = 0;

  // rows [R, D] back to their tokens, weighted  -> [T, D]
  virtual RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& weights,
                               const Routing& routing) const = 0;
};

}  // namespace moebius
