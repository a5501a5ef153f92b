#include "parallel/ops/token_gather.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"

namespace moebius {
namespace {

Shape WithRows(Shape shape, int64_t rows) {
  shape[0] = rows;
  return shape;
}

// x with zeros behind it, if it has not as many rows.
Tensor Padded(const Tensor& x, int64_t rows, Context& context) {
  if (x.shape()[0] == rows) return x;
  const Tensor padded = context.Zeros(x.dtype(), WithRows(x.shape(), rows), "gather.padded");
  const OpScope op = context.Start(Moves("gather.padded", x, padded));
  Copy(x, padded.Slice(0, x.shape()[0]));
  return padded;
}

// Rows of this rank to all ranks, or back: parts of sums over the ranks to this rank's sums.
class GatherMove {
 public:
  // Of `num_rows` rows here, and `max_rows` on the rank that has most.
  enum class Direction { kGather, kScatter };
  GatherMove(Direction direction, int64_t num_rows, int64_t max_rows)
      : direction_(direction), num_rows_(num_rows), max_rows_(max_rows) {}
  GatherMove Reversed() const {
    return {gathers() ? Direction::kScatter : Direction::kGather, num_rows_, max_rows_};
  }

  InFlight Start(const Tensor& x, Communicator& communicator, Context& context) const {
    const int64_t all_rows = communicator.size() * max_rows_;
    CHECK_EQ(x.shape()[0], gathers() ? num_rows_ : all_rows) << "not the rows of this gather";
    const Shape shape = WithRows(x.shape(), gathers() ? all_rows : max_rows_);
    InFlight rows = {.handle = {},
                     .sent = gathers() ? Padded(x, max_rows_, context) : x,
                     .received = context.Empty(x.dtype(), shape, "gather.rows")};
    rows.handle = gathers() ? communicator.AllGather(rows.sent, rows.received)
                            : communicator.ReduceScatter(rows.sent, rows.received);
    return rows;
  }

  Tensor Finish(InFlight rows, const Tensor& y, Context& context) const {
    rows.handle.Wait();
    const Tensor mine = gathers() ? rows.received : rows.received.Slice(0, num_rows_);
    if (!y.defined()) return mine;
    kernels::Cast({.x = mine, .y = y}, context);
    return y;
  }

 private:
  bool gathers() const { return direction_ == Direction::kGather; }

  Direction direction_;
  int64_t num_rows_, max_rows_;
};

int64_t Bytes(const GatherMove&) { return 0; }

Tensor ToTensor(const std::vector<int32_t>& numbers, Context& context) {
  const Tensor x = EmptyOnHost(DType::kI32, {std::ssize(numbers)}, "plan", context);
  std::ranges::copy(numbers, x.data<int32_t>());
  return x;
}

// [max_tokens] how many pairs each token has, and behind them their experts.
void WritePlan(const RoutingPlan& plan, int64_t max_tokens, const Tensor& mine, Context& context) {
  const OpScope op = context.Start(Moves("gather.plan", mine, mine));
  if (op.is_dry()) return;
  const Tensor token_offsets = ToHostLater(plan.token_offsets, context);
  const Tensor expert = ToHost(plan.expert, context);
  const auto offsets = token_offsets.span<int32_t>();
  int32_t* next = mine.data<int32_t>();
  std::fill_n(next, mine.size(), 0);
  for (size_t t = 0; t + 1 < offsets.size(); ++t) *next++ = offsets[t + 1] - offsets[t];
  std::ranges::copy(expert.span<int32_t>(), mine.data<int32_t>() + max_tokens);
}

// Of every rank [max_tokens] how many pairs each token has, and [max_pairs] their experts: for the
// host.
Tensor GatherPlans(const RoutingPlan& plan, const TokenGather& gather, Communicator& communicator,
                   Context& context) {
  const int64_t length = gather.max_tokens + gather.max_pairs;
  const Tensor mine = EmptyOnHost(DType::kI32, {length}, "plan", context);
  const Tensor all = EmptyOnHost(DType::kI32, {communicator.size(), length}, "plan", context);
  WritePlan(plan, gather.max_tokens, mine, context);
  communicator.AllGather(mine, all).Wait();
  return all;
}

// Where the experts of a rank stand among each other; -1 for those of others.
std::vector<int32_t> LocalIndices(std::span<const int> owner, int rank) {
  std::vector<int32_t> indices;
  int32_t next = 0;
  for (const int r : owner) indices.push_back(r == rank ? next++ : -1);
  return indices;
}

// Fills gather.plan and gather.pair out of the plans of all ranks.
void ChooseLocalPairs(const Tensor& plans, const std::vector<int32_t>& local_indices,
                      int64_t num_local_experts, TokenGather* gather, Context& context) {
  std::vector<int32_t> token_offsets = {0}, experts, pairs;
  for (int64_t rank = 0; rank < plans.shape()[0]; ++rank) {
    const int32_t* num_pairs = plans.data<int32_t>() + rank * plans.shape()[1];
    const int32_t* expert = num_pairs + gather->max_tokens;
    auto pair = static_cast<int32_t>(rank * gather->max_pairs);
    for (int64_t t = 0; t < gather->max_tokens; ++t) {
      for (int32_t i = 0; i < num_pairs[t]; ++i, ++pair) {
        const int32_t local = local_indices[*expert++];
        if (local < 0) continue;
        experts.push_back(local);
        pairs.push_back(pair);
      }
      token_offsets.push_back(static_cast<int32_t>(experts.size()));
    }
  }
  const auto on_device = [&](const std::vector<int32_t>& numbers) {
    return ToDevice(ToTensor(numbers, context), "plan", context);
  };
  gather->plan =
      kernels::BuildPlan(on_device(token_offsets), on_device(experts), num_local_experts, context);
  gather->pair = ToTensor(pairs, context);
}

// mine[i] = all[pair[i]], or the other way; by the host.
enum class PairsGo { kToMine, kToAll };
void MovePairs(PairsGo way, const Tensor& pair, const Tensor& all, const Tensor& mine,
               Context& context) {
  const OpScope op = context.Start(Moves("gather.pairs", pair, mine, mine));
  if (op.is_dry()) return;
  const auto size = static_cast<size_t>(SizeOf(all.dtype()));
  const Tensor host_all = ToHostLater(all, context), host_mine = ToHost(mine, context);
  const auto pairs = pair.span<int32_t>();
  for (int64_t i = 0; i < std::ssize(pairs); ++i) {
    std::byte *of_all = host_all.raw() + pairs[i] * size, *of_mine = host_mine.raw() + i * size;
    way == PairsGo::kToMine ? std::memcpy(of_mine, of_all, size)
                            : std::memcpy(of_all, of_mine, size);
  }
  way == PairsGo::kToMine ? Copy(host_mine, mine) : Copy(host_all, all);
}

}  // namespace

TokenGather MakeTokenGather(const RoutingPlan& plan, std::span<const int> owner, int copies,
                            Communicator& communicator, Context& context) {
  CHECK_EQ(plan.num_experts(), std::ssize(owner)) << "one owner an expert";
  const int num_ranks = communicator.size();
  CHECK_EQ(num_ranks % copies, 0) << "every expert has as many copies";
  const int64_t T = plan.num_tokens(), P = plan.num_pairs();
  if (num_ranks == 1) return {.max_tokens = T, .max_pairs = P, .plan = plan, .pair = {}};

  const int me = communicator.rank() / copies;
  const int64_t e = std::ranges::count(owner, me);
  int64_t most[] = {T, P};
  communicator.AllReduceMax(std::span(most)).Wait();
  TokenGather gather = {.max_tokens = most[0], .max_pairs = most[1], .plan = {}, .pair = {}};
  const Tensor plans = GatherPlans(plan, gather, communicator, context);
  if (context.device().is_meta()) {
    const auto int32 = [&](int64_t size) { return context.Empty(DType::kI32, {size}, "plan"); };
    gather.pair = int32(P * copies);
    gather.plan = kernels::BuildPlan(int32(num_ranks * T + 1), int32(P * copies), e, context);
  } else {
    ChooseLocalPairs(plans, LocalIndices(owner, me), e, &gather, context);
  }
  return gather;
}

RowsUnderWay GatherTokens(Tape& tape, const Var& x, const TokenGather& gather,
                          Communicator* communicator) {
  const auto [T, D] = Dims<2>(x.value());
  if (communicator->size() == 1) return RowsUnderWay([x](Tape&) { return x; });
  return StartMove(tape, x, GatherMove(GatherMove::Direction::kGather, T, gather.max_tokens),
                   communicator);
}

Var GatherWeights(Tape& tape, const Var& weights, const TokenGather& gather,
                  Communicator* communicator) {
  const auto [P] = Dims<1>(weights.value());
  if (communicator->size() == 1) return weights;
  Context& context = tape.context();
  const GatherMove move(GatherMove::Direction::kGather, P, gather.max_pairs);
  const Tensor all =
      move.Finish(move.Start(weights.value(), *communicator, context), Tensor(), context);
  const Tensor mine = context.Empty(weights.dtype(), gather.pair.shape(), "experts.weights");
  MovePairs(PairsGo::kToMine, gather.pair, all, mine, context);
  const Saved pair = tape.Save(gather.pair, "plan");
  return tape.Record(
      mine, [=, weights = weights.id(), all_pairs = all.size()](Tape& tape, const Tensor& dmine) {
        Context& context = tape.context();
        const Tensor dall = context.Zeros(dmine.dtype(), {all_pairs}, "gather.rows");
        MovePairs(PairsGo::kToAll, tape.Load(pair), dall, dmine, context);
        const GatherMove back = move.Reversed();
        FinishInto(tape.Gradient(weights), back, back.Start(dall, *communicator, context), context);
      });
}

RowsUnderWay ScatterTokens(Tape& tape, const Var& parts, int64_t num_tokens,
                           Communicator* communicator) {
  const auto [A, D] = Dims<2>(parts.value());
  if (communicator->size() == 1) return RowsUnderWay([parts](Tape&) { return parts; });
  CHECK_EQ(A % communicator->size(), 0) << "as much room for every rank";
  return StartMove(
      tape, parts,
      GatherMove(GatherMove::Direction::kScatter, num_tokens, A / communicator->size()),
      communicator);
}

}  // namespace moebius
