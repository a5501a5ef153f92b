#include "parallel/ops/exchange.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace moebius {
namespace {

struct Block {
  int32_t row;      // as the owner of the rows orders them
  int32_t message;  // in messages
  int32_t count;
};

Tensor ToTensor(std::span<const int32_t> numbers, const Shape& shape, Context& context) {
  const Tensor x = context.Empty(DType::kI32, shape, "exchange");
  std::ranges::copy(numbers, x.data<int32_t>());
  return x;
}

// Undefined where rows and messages are in one order, so that nothing need be moved.
Tensor BlocksTensor(const std::vector<Block>& blocks, Context& context) {
  if (std::ranges::all_of(blocks, [](const Block& b) { return b.row == b.message || !b.count; })) {
    return Tensor();
  }
  std::vector<int32_t> numbers;
  for (const Block& b : blocks) numbers.insert(numbers.end(), {b.row, b.message, b.count});
  return ToTensor(numbers, {static_cast<int64_t>(blocks.size()), 3}, context);
}

// The side of this rank's own rows: in messages ordered by owner, within an owner by expert.
Exchange::Side SenderSide(std::span<const int32_t> expert_offsets, std::span<const int> owner,
                          int num_ranks, Context& context) {
  std::vector<int32_t> counts(num_ranks);
  std::vector<Block> blocks;
  int32_t message = 0;
  for (int r = 0; r < num_ranks; ++r) {
    for (size_t j = 0; j < owner.size(); ++j) {
      if (owner[j] != r) continue;
      const int32_t count = expert_offsets[j + 1] - expert_offsets[j];
      blocks.push_back({expert_offsets[j], message, count});
      counts[r] += count;
      message += count;
    }
  }
  return {message, ToTensor(counts, {num_ranks}, context), BlocksTensor(blocks, context)};
}

// counts[r * e + j]: rows from rank r for local expert j, the order of the messages.
Exchange::Side ExpertSide(std::span<const int32_t> counts, int num_ranks,
                          std::span<const int32_t> expert_offsets, Context& context) {
  const size_t e = expert_offsets.size() - 1;
  std::vector<int32_t> next(expert_offsets.begin(), expert_offsets.end()), from_rank(num_ranks);
  std::vector<Block> blocks;
  int32_t message = 0;
  for (int r = 0; r < num_ranks; ++r) {
    for (size_t j = 0; j < e; ++j) {
      const int32_t count = counts[r * e + j];
      blocks.push_back({next[j], message, count});
      next[j] += count;
      from_rank[r] += count;
      message += count;
    }
  }
  return {message, ToTensor(from_rank, {num_ranks}, context), BlocksTensor(blocks, context)};
}

// [ranks * e]: what every rank has for each of this rank's experts.
std::vector<int32_t> ExchangeCounts(std::span<const int32_t> expert_offsets,
                                    std::span<const int> owner, Communicator& communicator) {
  const int num_ranks = communicator.size();
  std::vector<int32_t> counts, num_experts(num_ranks);
  for (int r = 0; r < num_ranks; ++r) {
    for (size_t j = 0; j < owner.size(); ++j) {
      if (owner[j] != r) continue;
      counts.push_back(expert_offsets[j + 1] - expert_offsets[j]);
      ++num_experts[r];
    }
  }
  const int32_t e = num_experts[communicator.rank()];
  std::vector<int32_t> received(static_cast<size_t>(num_ranks) * e);
  const std::vector<int32_t> from_each(num_ranks, e);
  communicator.AllToAllV({std::span(counts), num_experts}, {std::span(received), from_each}, 1)
      .Wait();
  return received;
}

enum class Direction { kIntoMessages, kOutOfMessages };

void MoveBlocks(const Tensor& blocks, Direction direction, const Tensor& rows,
                const Tensor& messages, Context& context) {
  const int64_t row_bytes = rows.shape()[1] * SizeOf(rows.dtype());
  const auto numbers = blocks.span<int32_t>();
  context.pool().For(blocks.shape()[0], [&](int64_t i) {
    std::byte* in_rows = rows.raw() + numbers[3 * i] * row_bytes;
    std::byte* in_messages = messages.raw() + numbers[3 * i + 1] * row_bytes;
    const size_t bytes = static_cast<size_t>(numbers[3 * i + 2] * row_bytes);
    if (bytes == 0) return;
    if (direction == Direction::kIntoMessages) {
      std::memcpy(in_messages, in_rows, bytes);
    } else {
      std::memcpy(in_rows, in_messages, bytes);
    }
  });
}

// x [rows of `from`, D] -> y [rows of `to`, D]
void SendRows(const Exchange::Side& from, const Exchange::Side& to, const Tensor& x,
              const Tensor& y, Communicator& communicator, Context& context) {
  Tensor sent = x, received = y;
  if (from.blocks.defined()) {
    sent = context.Empty(x.dtype(), x.shape(), "exchange.messages");
    MoveBlocks(from.blocks, Direction::kIntoMessages, x, sent, context);
  }
  if (to.blocks.defined()) received = context.Empty(y.dtype(), y.shape(), "exchange.messages");
  communicator
      .AllToAllV({sent, from.counts.span<int32_t>()}, {received, to.counts.span<int32_t>()},
                 x.shape()[1])
      .Wait();
  if (to.blocks.defined()) {
    MoveBlocks(to.blocks, Direction::kOutOfMessages, y, received, context);
  }
}

template <class T>
void AddTo(const Tensor& sum, const Tensor& x, Context& context) {
  context.pool().ForRange(x.size(), 1 << 14, [&](int64_t begin, int64_t end) {
    T* out = sum.data<T>();
    const T* in = x.data<T>();
    for (int64_t i = begin; i < end; ++i) {
      if constexpr (std::is_same_v<T, BF16>) {
        out[i] = BF16(static_cast<float>(out[i]) + static_cast<float>(in[i]));
      } else {
        out[i] += in[i];
      }
    }
  });
}

void AddTo(const Tensor& sum, const Tensor& x, Context& context) {
  switch (x.dtype()) {
    case DType::kF64:
      return AddTo<double>(sum, x, context);
    case DType::kF32:
      return AddTo<float>(sum, x, context);
    case DType::kBF16:
      return AddTo<BF16>(sum, x, context);
    default:
      CHECK(false) << "gradients of " << NameOf(x.dtype());
  }
}

Tensor Exchanged(const Exchange::Side& from, const Exchange::Side& to, const Tensor& x,
                 const char* name, Communicator& communicator, Context& context) {
  if (context.device().is_meta()) return context.Empty(x.dtype(), x.shape(), name);
  CHECK_EQ(x.shape()[0], from.num_rows) << "not the rows of this exchange";
  const Tensor y = context.Empty(x.dtype(), {to.num_rows, x.shape()[1]}, name);
  SendRows(from, to, x, y, communicator, context);
  return y;
}

// The gradient of the rows of `to`, which the rows of `from` bring back.
void ExchangeGradient(const Exchange::Side& from, const Exchange::Side& to, const Tensor& dy,
                      const GradientSlot& dx, Communicator& communicator, Context& context) {
  if (dx.accumulate) {
    const Tensor part = Exchanged(from, to, dy, "exchange.gradient", communicator, context);
    if (!context.device().is_meta()) AddTo(dx.tensor, part, context);
  } else if (!context.device().is_meta()) {
    SendRows(from, to, dy, dx.tensor, communicator, context);
  }
}

}  // namespace

int64_t Bytes(const Exchange& exchange) {
  int64_t bytes = 0;
  for (const Tensor& x : {exchange.senders.counts, exchange.senders.blocks, exchange.experts.counts,
                          exchange.experts.blocks, exchange.local_offsets}) {
    if (x.defined()) bytes += x.bytes();
  }
  return bytes;
}

Exchange MakeExchange(const Tensor& expert_offsets, std::span<const int> owner,
                      Communicator& communicator, Context& context) {
  CHECK_EQ(expert_offsets.size(), static_cast<int64_t>(owner.size()) + 1) << "one owner an expert";
  const int num_ranks = communicator.size();
  Exchange exchange;
  exchange.local_offsets = expert_offsets;
  if (num_ranks == 1) return exchange;
  const int64_t e = std::ranges::count(owner, communicator.rank());
  exchange.local_offsets = context.Empty(DType::kI32, {e + 1}, "exchange");
  if (context.device().is_meta()) return exchange;

  const auto offsets = expert_offsets.span<int32_t>();
  const std::vector<int32_t> counts = ExchangeCounts(offsets, owner, communicator);
  const auto local_offsets = exchange.local_offsets.span<int32_t>();
  local_offsets[0] = 0;
  for (int64_t j = 0; j < e; ++j) {
    local_offsets[j + 1] = local_offsets[j];
    for (int r = 0; r < num_ranks; ++r) local_offsets[j + 1] += counts[r * e + j];
  }
  exchange.senders = SenderSide(offsets, owner, num_ranks, context);
  exchange.experts = ExpertSide(counts, num_ranks, local_offsets, context);
  return exchange;
}

Var ToExperts(Tape& tape, const Var& rows, const Exchange& exchange, Communicator* communicator) {
  CHECK_EQ(rows.shape().rank(), 2);
  if (communicator->size() == 1) return rows;
  const Tensor local = Exchanged(exchange.senders, exchange.experts, rows.value(), "experts.rows",
                                 *communicator, tape.context());
  const Saved saved = tape.Save(exchange, "exchange");
  return tape.Record(local, [=, rows = rows.id()](Tape& tape, const Tensor& dlocal) {
    const auto& exchange = tape.Load<Exchange>(saved);
    ExchangeGradient(exchange.experts, exchange.senders, dlocal, tape.Gradient(rows), *communicator,
                     tape.context());
  });
}

Var FromExperts(Tape& tape, const Var& local, const Exchange& exchange,
                Communicator* communicator) {
  CHECK_EQ(local.shape().rank(), 2);
  if (communicator->size() == 1) return local;
  const Tensor rows = Exchanged(exchange.experts, exchange.senders, local.value(), "exchange.rows",
                                *communicator, tape.context());
  const Saved saved = tape.Save(exchange, "exchange");
  return tape.Record(rows, [=, local = local.id()](Tape& tape, const Tensor& drows) {
    const auto& exchange = tape.Load<Exchange>(saved);
    ExchangeGradient(exchange.senders, exchange.experts, drows, tape.Gradient(local), *communicator,
                     tape.context());
  });
}

}  // namespace moebius
