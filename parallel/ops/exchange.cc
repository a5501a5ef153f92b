#include "parallel/ops/exchange.h"

#include <algorithm>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"
#include "parallel/ordered_reduction.h"

namespace moebius {
namespace {

struct Block {
  int32_t row;      // as the owner of the rows orders them
  int32_t message;  // in messages
  int32_t count;
};

Tensor ToTensor(std::span<const int32_t> numbers, const Shape& shape, Context& context) {
  const Tensor x = EmptyOnHost(DType::kI32, shape, "exchange", context);
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

// The side of this rank's own rows: in messages ordered by rank, within a rank by expert.
Exchange::Side SenderSide(std::span<const int32_t> expert_offsets, std::span<const int> owner,
                          int copies, int num_ranks, Context& context) {
  std::vector<int32_t> counts(num_ranks);
  std::vector<std::vector<Block>> blocks(copies);
  int32_t message = 0;
  for (int r = 0; r < num_ranks; ++r) {
    for (size_t j = 0; j < owner.size(); ++j) {
      if (owner[j] != r / copies) continue;
      const int32_t count = expert_offsets[j + 1] - expert_offsets[j];
      blocks[r % copies].push_back({expert_offsets[j], message, count});
      counts[r] += count;
      message += count;
    }
  }
  std::vector<Block> by_copy;
  for (const auto& copy : blocks) by_copy.insert(by_copy.end(), copy.begin(), copy.end());
  return {message / copies, copies, ToTensor(counts, {num_ranks}, context),
          BlocksTensor(by_copy, context)};
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
  return {message, 1, ToTensor(from_rank, {num_ranks}, context), BlocksTensor(blocks, context)};
}

// [ranks * e]: what every rank has for each of this rank's experts.
std::vector<int32_t> ExchangeCounts(std::span<const int32_t> expert_offsets,
                                    std::span<const int> owner, int copies,
                                    Communicator& communicator) {
  const int num_ranks = communicator.size();
  std::vector<int32_t> counts, num_experts(num_ranks);
  for (int r = 0; r < num_ranks; ++r) {
    for (size_t j = 0; j < owner.size(); ++j) {
      if (owner[j] != r / copies) continue;
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

// Where the blocks of a side lie, in bytes: the i-th of each copy.
class Blocks {
 public:
  Blocks(const Exchange::Side& side, const Tensor& rows)
      : numbers_(side.blocks.span<int32_t>()),
        count_(side.blocks.shape()[0] / side.copies),
        width_(rows.shape()[1]),
        element_bytes_(SizeOf(rows.dtype())) {}

  int64_t count() const { return count_; }
  int64_t row(int64_t i) const { return numbers_[3 * i] * width_ * element_bytes_; }
  int64_t message(int64_t i, int copy) const {
    return numbers_[3 * (copy * count_ + i) + 1] * width_ * element_bytes_;
  }
  int64_t elements(int64_t i) const { return numbers_[3 * i + 2] * width_; }
  int64_t bytes(int64_t i) const { return elements(i) * element_bytes_; }

 private:
  const std::span<const int32_t> numbers_;
  const int64_t count_, width_, element_bytes_;
};

// On kMeta: the sides of even routing, whose counts are not known yet.
void MakeDryExchange(int64_t num_local_experts, Communicator& communicator, Context& context,
                     Exchange& exchange) {
  const auto int32s = [&](const Shape& shape) {
    return context.Empty(DType::kI32, shape, "exchange");
  };
  const int num_ranks = communicator.size();
  std::vector<int32_t> none(num_ranks);
  communicator.AllToAllV({std::span(none), none}, {std::span(none), none}, 1).Wait();
  exchange.senders.counts = exchange.experts.counts = int32s({num_ranks});
  const int64_t E = num_ranks / exchange.senders.copies * num_local_experts;
  if (exchange.senders.copies > 1) {
    exchange.senders.blocks = int32s({E * exchange.senders.copies, 3});
  }
  if (num_local_experts > 1) exchange.experts.blocks = int32s({num_ranks * num_local_experts, 3});
}

// Of `num_messages` rows in messages, those to (from) each rank. On kMeta as many to each.
std::vector<int32_t> CountsOf(const Exchange::Side& side, int64_t num_messages, int num_ranks) {
  if (side.counts.device().is_meta()) {
    return std::vector<int32_t>(num_ranks, static_cast<int32_t>(num_messages / num_ranks));
  }
  const auto counts = side.counts.span<int32_t>();
  return {counts.begin(), counts.end()};
}

void IntoMessages(const Exchange::Side& side, const Tensor& rows, const Tensor& messages,
                  Context& context) {
  const OpScope op = context.Start(Moves("exchange.rows", rows, messages));
  if (op.is_dry()) return;
  const Blocks blocks(side, rows);
  std::vector<CopyPiece> pieces;
  for (int64_t i = 0; i < blocks.count(); ++i) {
    for (int copy = 0; copy < side.copies; ++copy) {
      pieces.push_back({blocks.row(i), blocks.message(i, copy), blocks.bytes(i)});
    }
  }
  CopyPieces(rows, messages, pieces, context);
}

// Copies of a row, in their order, by the host; BF16 in F32.
void AddCopies(const Exchange::Side& side, const Tensor& rows, const Tensor& messages,
               Context& context) {
  const Tensor host_messages = ToHost(messages, context), host_rows = HostSide(rows, context);
  const Blocks blocks(side, rows);
  context.pool().For(blocks.count(), [&](int64_t i) {
    if (blocks.bytes(i) == 0) return;
    std::vector<const std::byte*> copies;
    for (int copy = 0; copy < side.copies; ++copy) {
      copies.push_back(host_messages.raw() + blocks.message(i, copy));
    }
    ReduceInRankOrder(Reduction::kSum, rows.dtype(), copies, blocks.elements(i), rows.dtype(),
                      host_rows.raw() + blocks.row(i));
  });
  Copy(host_rows, rows);
}

void OutOfMessages(const Exchange::Side& side, const Tensor& rows, const Tensor& messages,
                   Context& context) {
  const OpScope op = context.Start(Moves("exchange.rows", rows, messages));
  if (op.is_dry()) return;
  if (side.copies > 1) return AddCopies(side, rows, messages, context);
  const Blocks blocks(side, rows);
  std::vector<CopyPiece> pieces;
  for (int64_t i = 0; i < blocks.count(); ++i) {
    pieces.push_back({blocks.message(i, 0), blocks.row(i), blocks.bytes(i)});
  }
  CopyPieces(messages, rows, pieces, context);
}

// x [rows of `from`, D] -> y [rows of `to`, D]
class ExchangeMove {
 public:
  ExchangeMove(Exchange::Side from, Exchange::Side to)
      : from_(std::move(from)), to_(std::move(to)) {}
  ExchangeMove Reversed() const { return {to_, from_}; }

  int64_t bytes() const {
    int64_t bytes = 0;
    for (const Tensor& x : {from_.counts, from_.blocks, to_.counts, to_.blocks}) {
      if (x.defined()) bytes += x.bytes();
    }
    return bytes;
  }

  InFlight Start(const Tensor& x, Communicator& communicator, Context& context) const {
    int64_t num_received = to_.num_rows * to_.copies;
    if (context.device().is_meta()) {
      num_received = x.shape()[0] * from_.copies;
    } else {
      CHECK_EQ(x.shape()[0], from_.num_rows) << "not the rows of this exchange";
    }
    const auto rows = [&](int64_t count) {
      return context.Empty(x.dtype(), {count, x.shape()[1]}, "exchange.rows");
    };
    Tensor sent = x;
    if (from_.blocks.defined()) {
      sent = rows(x.shape()[0] * from_.copies);
      IntoMessages(from_, x, sent, context);
    }
    const Tensor received = rows(num_received);
    const std::vector<int32_t> to_each = CountsOf(from_, sent.shape()[0], communicator.size());
    const std::vector<int32_t> from_each = CountsOf(to_, num_received, communicator.size());
    Handle handle = communicator.AllToAllV({sent, to_each}, {received, from_each}, x.shape()[1]);
    return {std::move(handle), sent, received};
  }

  Tensor Finish(InFlight rows, const Tensor& y, Context& context) const {
    rows.handle.Wait();
    rows.sent = Tensor();
    const Tensor& received = rows.received;
    if (!to_.blocks.defined() && !y.defined()) return received;
    const Shape shape = {received.shape()[0] / to_.copies, received.shape()[1]};
    const Tensor out = y.defined() ? y : context.Empty(received.dtype(), shape, "exchange.rows");
    if (to_.blocks.defined()) {
      OutOfMessages(to_, out, received, context);
    } else {
      kernels::Cast({.x = received, .y = out}, context);
    }
    return out;
  }

 private:
  Exchange::Side from_, to_;
};

int64_t Bytes(const ExchangeMove& move) { return move.bytes(); }

RowsUnderWay MoveRows(Tape& tape, const Var& x, const Exchange::Side& from,
                      const Exchange::Side& to, Communicator* communicator) {
  CHECK_EQ(x.shape().rank(), 2);
  if (communicator->size() == 1) return RowsUnderWay([x](Tape&) { return x; });
  return StartMove(tape, x, ExchangeMove(from, to), communicator);
}

}  // namespace

Exchange MakeExchange(const Tensor& expert_offsets, std::span<const int> owner, int copies,
                      Communicator& communicator, Context& context) {
  CHECK_EQ(expert_offsets.size(), static_cast<int64_t>(owner.size()) + 1) << "one owner an expert";
  const int num_ranks = communicator.size();
  CHECK_EQ(num_ranks % copies, 0) << "every expert has as many copies";
  Exchange exchange;
  exchange.senders.copies = copies;
  exchange.local_offsets = expert_offsets;
  if (num_ranks == 1) return exchange;
  const int64_t e = std::ranges::count(owner, communicator.rank() / copies);
  const Tensor local = EmptyOnHost(DType::kI32, {e + 1}, "exchange", context);
  exchange.local_offsets = local;
  if (context.device().is_meta()) {
    MakeDryExchange(e, communicator, context, exchange);
    return exchange;
  }

  const Tensor here = ToHost(expert_offsets, context);
  const auto offsets = here.span<int32_t>();
  const std::vector<int32_t> counts = ExchangeCounts(offsets, owner, copies, communicator);
  const auto local_offsets = local.span<int32_t>();
  local_offsets[0] = 0;
  for (int64_t j = 0; j < e; ++j) {
    local_offsets[j + 1] = local_offsets[j];
    for (int r = 0; r < num_ranks; ++r) local_offsets[j + 1] += counts[r * e + j];
  }
  exchange.senders = SenderSide(offsets, owner, copies, num_ranks, context);
  exchange.experts = ExpertSide(counts, num_ranks, local_offsets, context);
  exchange.local_offsets = ToDevice(local, "exchange", context);
  return exchange;
}

RowsUnderWay ToExperts(Tape& tape, const Var& rows, const Exchange& exchange,
                       Communicator* communicator) {
  return MoveRows(tape, rows, exchange.senders, exchange.experts, communicator);
}

RowsUnderWay FromExperts(Tape& tape, const Var& local, const Exchange& exchange,
                         Communicator* communicator) {
  return MoveRows(tape, local, exchange.experts, exchange.senders, communicator);
}

}  // namespace moebius
