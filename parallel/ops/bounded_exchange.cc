#include "parallel/ops/bounded_exchange.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/row_slots.h"

namespace moebius {
namespace {

// [n / copies + 1]: where the experts of each owner begin.
Tensor FirstExperts(std::span<const int> owner, int num_owners, Context& context) {
  const Tensor first = EmptyOnHost(DType::kI32, {num_owners + 1}, "exchange", context);
  if (context.device().is_meta()) return first;
  for (int o = 0; o <= num_owners; ++o) {
    const auto begin = std::ranges::lower_bound(owner, o) - owner.begin();
    first.data<int32_t>()[o] = static_cast<int32_t>(begin);
  }
  return ToDevice(first, "exchange", context);
}

// Rows by way of blocks of `capacity` slots, one for each rank.
class BoundedMove {
 public:
  enum class Direction { kToExperts, kFromExperts };
  BoundedMove(Direction direction, BoundedExchange exchange)
      : direction_(direction), exchange_(std::move(exchange)) {}
  BoundedMove Reversed() const {
    return {to_experts() ? Direction::kFromExperts : Direction::kToExperts, exchange_};
  }
  int64_t bytes() const { return exchange_.sent.bytes() + exchange_.received.bytes(); }

  InFlight Start(const Tensor& x, Communicator& communicator, Context& context) const {
    CHECK_EQ(x.shape()[0], to_experts() ? exchange_.num_rows : num_slots())
        << "not the rows of this exchange";
    const int64_t width = x.shape()[1];
    const auto slots = [&] {
      return context.Empty(x.dtype(), {num_slots(), width}, "exchange.rows");
    };
    InFlight rows = {.handle = {}, .sent = slots(), .received = slots()};
    if (to_experts()) {
      kernels::ScatterRows({.x = x,
                            .at = exchange_.sent,
                            .y = rows.sent,
                            .copies = exchange_.copies,
                            .step = exchange_.capacity},
                           context);
    } else {
      kernels::GatherRows({.x = x, .at = exchange_.received, .y = rows.sent}, context);
    }
    const std::vector<int32_t> counts(communicator.size(),
                                      static_cast<int32_t>(exchange_.capacity));
    rows.handle = communicator.AllToAllV({rows.sent, counts}, {rows.received, counts}, width);
    return rows;
  }

  Tensor Finish(InFlight rows, const Tensor& y, Context& context) const {
    rows.handle.Wait();
    rows.sent = Tensor();
    const Tensor& received = rows.received;
    const Shape shape = {to_experts() ? num_slots() : exchange_.num_rows, received.shape()[1]};
    const Tensor out = y.defined() ? y : context.Empty(received.dtype(), shape, "exchange.rows");
    if (to_experts()) {
      kernels::ScatterRows({.x = received, .at = exchange_.received, .y = out}, context);
    } else {
      kernels::GatherRows({.x = received,
                           .at = exchange_.sent,
                           .y = out,
                           .copies = exchange_.copies,
                           .step = exchange_.capacity},
                          context);
    }
    return out;
  }

 private:
  bool to_experts() const { return direction_ == Direction::kToExperts; }
  int64_t num_slots() const { return exchange_.received.size(); }

  Direction direction_;
  BoundedExchange exchange_;
};

int64_t Bytes(const BoundedMove& move) { return move.bytes(); }

}  // namespace

BoundedExchange MakeBoundedExchange(const Tensor& expert_offsets, int64_t num_rows,
                                    std::span<const int> owner, int copies,
                                    const ExchangeBound& bound, Communicator& communicator,
                                    Context& context) {
  const auto E = std::ssize(owner);
  CHECK_EQ(expert_offsets.size(), E + 1) << "one owner an expert";
  CHECK(std::ranges::is_sorted(owner)) << "the experts of a rank stand side by side";
  const int n = communicator.size();
  CHECK_EQ(n % copies, 0) << "every expert has as many copies";
  const int64_t e = std::ranges::count(owner, communicator.rank() / copies);
  const auto int32s = [&](const Shape& shape) {
    return context.Empty(DType::kI32, shape, "exchange");
  };
  const BoundedExchange exchange = {.capacity = bound.capacity,
                                    .num_rows = num_rows,
                                    .copies = copies,
                                    .sent = int32s({num_rows}),
                                    .received = int32s({n, bound.capacity}),
                                    .local_offsets = int32s({e + 1})};
  const Tensor all_offsets = int32s({n, E + 1});
  communicator.AllGather(expert_offsets, all_offsets).Wait();
  kernels::RowSlots({.expert_offsets = all_offsets,
                     .first_experts = FirstExperts(owner, n / copies, context),
                     .rank = communicator.rank(),
                     .copies = copies,
                     .sent = exchange.sent,
                     .received = exchange.received,
                     .local_offsets = exchange.local_offsets,
                     .overflow = bound.overflow},
                    context);
  return exchange;
}

RowsUnderWay ToExperts(Tape& tape, const Var& rows, const BoundedExchange& exchange,
                       Communicator* communicator) {
  return StartMove(tape, rows, BoundedMove(BoundedMove::Direction::kToExperts, exchange),
                   communicator);
}

RowsUnderWay FromExperts(Tape& tape, const Var& local, const BoundedExchange& exchange,
                         Communicator* communicator) {
  return StartMove(tape, local, BoundedMove(BoundedMove::Direction::kFromExperts, exchange),
                   communicator);
}

}  // namespace moebius
