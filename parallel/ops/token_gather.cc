#include "parallel/ops/token_gather.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/elementwise.h"

namespace moebius {
namespace {

Shape WithRows(Shape shape, int64_t rows) {
  shape[0] = rows;
  return shape;
}

void CopyBytes(const std::byte* from, std::byte* to, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// x with zeros behind it, if it has not as many rows.
Tensor Padded(const Tensor& x, int64_t rows, Context& context) {
  if (x.shape()[0] == rows) return x;
  const Tensor padded = context.Zeros(x.dtype(), WithRows(x.shape(), rows), "gather.padded");
  if (!context.device().is_meta()) CopyBytes(x.raw(), padded.raw(), x.bytes());
  return padded;
}

// all [A, ...] = the x of every rank
void Gather(const Tensor& x, const Tensor& all, Communicator& communicator, Context& context) {
  const Tensor mine = Padded(x, all.shape()[0] / communicator.size(), context);
  if (!context.device().is_meta()) communicator.AllGather(mine, all).Wait();
}

// x = this rank's rows of the sum of `all` [A, ...] over the ranks
void Scatter(const Tensor& all, const Tensor& x, Communicator& communicator, Context& context) {
  const int64_t rows = all.shape()[0] / communicator.size();
  const bool is_padded = rows != x.shape()[0];
  const Tensor sum =
      is_padded ? context.Empty(x.dtype(), WithRows(x.shape(), rows), "gather.padded") : x;
  if (context.device().is_meta()) return;
  communicator.ReduceScatter(all, sum).Wait();
  if (is_padded) CopyBytes(sum.raw(), x.raw(), x.bytes());
}

using MoveFn = void (*)(const Tensor& from, const Tensor& to, Communicator& communicator,
                        Context& context);

void MoveGradient(MoveFn move, const Tensor& dy, const GradientSlot& dx, Communicator& communicator,
                  Context& context) {
  if (!dx.accumulate) return move(dy, dx.tensor, communicator, context);
  const Tensor part = context.Empty(dy.dtype(), dx.tensor.shape(), "gather.gradient");
  move(dy, part, communicator, context);
  kernels::Cast({.x = part, .y = dx.tensor, .accumulate = true}, context);
}

Tensor ToTensor(const std::vector<int32_t>& numbers, Context& context) {
  const Tensor x = context.Empty(DType::kI32, {std::ssize(numbers)}, "plan");
  std::ranges::copy(numbers, x.data<int32_t>());
  return x;
}

// Of every rank [max_tokens] how many pairs each token has, and [max_pairs] their experts.
Tensor GatherPlans(const RoutingPlan& plan, const TokenGather& gather, Communicator& communicator,
                   Context& context) {
  const int64_t length = gather.max_tokens + gather.max_pairs;
  const Tensor mine = context.Zeros(DType::kI32, {length}, "plan");
  const Tensor all = context.Empty(DType::kI32, {communicator.size(), length}, "plan");
  const auto offsets = plan.token_offsets.span<int32_t>();
  int32_t* next = mine.data<int32_t>();
  for (size_t t = 0; t + 1 < offsets.size(); ++t) *next++ = offsets[t + 1] - offsets[t];
  std::ranges::copy(plan.expert.span<int32_t>(), mine.data<int32_t>() + gather.max_tokens);
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
  gather->plan = kernels::BuildPlan(ToTensor(token_offsets, context), ToTensor(experts, context),
                                    num_local_experts, context);
  gather->pair = ToTensor(pairs, context);
}

// all[pair[i]] and mine[i], elements of one size, with fn(of_all, of_mine, bytes).
template <class Fn>
void ForPairs(const Tensor& pair, const Tensor& all, const Tensor& mine, const Fn& fn) {
  const int64_t size = SizeOf(all.dtype());
  const auto pairs = pair.span<int32_t>();
  for (int64_t i = 0; i < std::ssize(pairs); ++i) {
    fn(all.raw() + pairs[i] * size, mine.raw() + i * size, size);
  }
}

}  // namespace

int64_t Bytes(const TokenGather& gather) {
  int64_t bytes = gather.pair.defined() ? gather.pair.bytes() : 0;
  for (const Tensor& x : {gather.plan.token_offsets, gather.plan.expert, gather.plan.expert_offsets,
                          gather.plan.row}) {
    bytes += x.bytes();
  }
  return bytes;
}

TokenGather MakeTokenGather(const RoutingPlan& plan, std::span<const int> owner, int copies,
                            Communicator& communicator, Context& context) {
  CHECK_EQ(plan.num_experts(), std::ssize(owner)) << "one owner an expert";
  const int num_ranks = communicator.size();
  CHECK_EQ(num_ranks % copies, 0) << "every expert has as many copies";
  const int64_t T = plan.num_tokens(), P = plan.num_pairs();
  if (num_ranks == 1) return {.max_tokens = T, .max_pairs = P, .plan = plan, .pair = {}};

  const int me = communicator.rank() / copies;
  const int64_t e = std::ranges::count(owner, me);
  const auto int32 = [&](int64_t size) { return context.Empty(DType::kI32, {size}, "plan"); };
  if (context.device().is_meta()) {
    const int64_t R = P * copies;
    return {T, P, {int32(num_ranks * T + 1), int32(R), int32(e + 1), int32(R)}, int32(R)};
  }
  int64_t most[] = {T, P};
  communicator.AllReduceMax(std::span(most)).Wait();
  TokenGather gather = {.max_tokens = most[0], .max_pairs = most[1], .plan = {}, .pair = {}};
  ChooseLocalPairs(GatherPlans(plan, gather, communicator, context), LocalIndices(owner, me), e,
                   &gather, context);
  return gather;
}

Var GatherTokens(Tape& tape, const Var& x, const TokenGather& gather, Communicator* communicator) {
  const auto [T, D] = Dims<2>(x.value());
  if (communicator->size() == 1) return x;
  CHECK_LE(T, gather.max_tokens) << "not the tokens of this gather";
  const Tensor all =
      tape.context().Empty(x.dtype(), {communicator->size() * gather.max_tokens, D}, "gather.all");
  Gather(x.value(), all, *communicator, tape.context());
  return tape.Record(all, [=, x = x.id()](Tape& tape, const Tensor& dall) {
    MoveGradient(Scatter, dall, tape.Gradient(x), *communicator, tape.context());
  });
}

Var GatherWeights(Tape& tape, const Var& weights, const TokenGather& gather,
                  Communicator* communicator) {
  const auto [P] = Dims<1>(weights.value());
  if (communicator->size() == 1) return weights;
  CHECK_LE(P, gather.max_pairs) << "not the pairs of this gather";
  Context& context = tape.context();
  const Shape all_pairs = {communicator->size() * gather.max_pairs};
  const Tensor all = context.Empty(weights.dtype(), all_pairs, "gather.weights");
  const Tensor mine = context.Empty(weights.dtype(), gather.pair.shape(), "experts.weights");
  Gather(weights.value(), all, *communicator, context);
  if (!context.device().is_meta()) {
    ForPairs(gather.pair, all, mine, [](std::byte* of_all, std::byte* of_mine, int64_t bytes) {
      CopyBytes(of_all, of_mine, bytes);
    });
  }
  const Saved pair = tape.Save(gather.pair, "plan");
  return tape.Record(mine, [=, weights = weights.id()](Tape& tape, const Tensor& dmine) {
    Context& context = tape.context();
    const Tensor dall = context.Zeros(dmine.dtype(), all_pairs, "gather.weights");
    if (!context.device().is_meta()) {
      ForPairs(tape.Load(pair), dall, dmine,
               [](std::byte* of_all, std::byte* of_mine, int64_t bytes) {
                 CopyBytes(of_mine, of_all, bytes);
               });
    }
    MoveGradient(Scatter, dall, tape.Gradient(weights), *communicator, context);
  });
}

Var ScatterTokens(Tape& tape, const Var& parts, int64_t num_tokens, Communicator* communicator) {
  const auto [A, D] = Dims<2>(parts.value());
  if (communicator->size() == 1) return parts;
  CHECK_EQ(A % communicator->size(), 0) << "as much room for every rank";
  CHECK_LE(num_tokens, A / communicator->size());
  const Tensor sums = tape.context().Empty(parts.dtype(), {num_tokens, D}, "gather.sums");
  Scatter(parts.value(), sums, *communicator, tape.context());
  return tape.Record(sums, [=, parts = parts.id()](Tape& tape, const Tensor& dsums) {
    MoveGradient(Gather, dsums, tape.Gradient(parts), *communicator, tape.context());
  });
}

}  // namespace moebius
