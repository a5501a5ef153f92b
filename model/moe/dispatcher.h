// Brings tokens to the experts that are chosen for them, and what these make of them back. Both
// ways agree to rounding:
//   all-to-all   a token's row travels once to each of its experts, and each result back: K rows a
//                token each way. In messages of the length of what there is, or, where the step
//                says so (BoundedDispatch), of a fixed length: to the same bits.
//   all-gather   every rank of the expert group gets the tokens of all, runs its experts' pairs,
//                and sends every token's owner one row, its part of the weighted sum: as many rows
//                a token as there are ranks, whatever K, and messages of equal length.
// Where tokens are on the rank of their experts (all-gather, or one rank has all experts), these
// read them where they are and add up what they make of them: no row is copied for an expert.
// Letters: T tokens of the shard, P pairs, R rows of this rank's experts, e experts of this rank, B
// rows that are brought to it.
#pragma once

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
#include "model/inputs.h"
#include "parallel/mesh.h"
#include "parallel/ops/bounded_exchange.h"
#include "parallel/ops/exchange.h"
#include "parallel/ops/token_gather.h"

namespace moebius {

// Tokens that stand where they are, and the pairs that this rank's experts have with them.
struct TokensInPlace {
  RoutingPlan plan;   // of B tokens, e experts, R pairs
  Tensor row_tokens;  // [R] kernels::RowTokens
};

// What a layer decides once for a micro-batch; a replay meets it again.
struct Routing {
  RoutingPlan plan;                                          // of this rank's tokens
  std::variant<Exchange, BoundedExchange, TokenGather> way;  // by the dispatcher
  // Without a value, what is brought are the R rows, grouped by expert.
  std::optional<TokensInPlace> in_place = {};
  Tensor row_offsets = {};  // [e + 1] of these rows
};

enum class DispatcherKind { kAllToAll, kAllGather };

class Dispatcher {
 public:
  // owner[i]: the position on the expert axis that holds expert i. Of a token's pairs at most
  // `top_k` are brought to a rank. The mesh outlives it.
  static std::unique_ptr<Dispatcher> Create(DispatcherKind kind, std::vector<int> owner,
                                            int64_t top_k, Mesh& mesh);
  virtual ~Dispatcher() = default;

  // Agrees with the other ranks of the expert group. Collective: tell the tape to decide it Once.
  virtual Routing Agree(RoutingPlan plan, const BoundedDispatch& bound, Context& context) const = 0;

  // weights [P] of this rank's tokens -> those of the pairs that are added up here
  virtual Var CombineWeights(Tape& tape, const Var& weights, const Routing& routing) const = 0;

  // x [T, D] -> [B, D]
  virtual RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const = 0;

  // What experts made of them, [B, D] (in place: weighted sums), back to their tokens -> [T, D]
  virtual RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& weights,
                               const Routing& routing) const = 0;
};

}  // namespace moebius
