// Rows on their way between ranks, as two ops on a tape: the first starts a collective, the second
// waits for it. What is recorded between the two is computed while the rows travel: forward after
// their start, and backward, where the second op sends the gradients and the first waits for them,
// after the start of the gradients. That changes the moment, and no number.
//
//   RowsUnderWay rows = ToExperts(tape, ...);
//   const Var other = ...;               // meanwhile
//   const Var arrived = rows.Wait(tape);
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "core/tape/tape.h"
#include "kernels/elementwise.h"
#include "parallel/communicator.h"

namespace moebius {

class RowsUnderWay {
 public:
  explicit RowsUnderWay(std::function<Var(Tape& tape)> wait) : wait_(std::move(wait)) {}
  RowsUnderWay(RowsUnderWay&&) = default;

  // What has arrived. Called once, on the tape that they started on.
  Var Wait(Tape& tape) { return std::exchange(wait_, nullptr)(tape); }

  // What `fn` makes of it, once it is there.
  RowsUnderWay Then(std::function<Var(Tape& tape, const Var& arrived)> fn) && {
    return RowsUnderWay(
        [wait = std::move(wait_), fn = std::move(fn)](Tape& tape) { return fn(tape, wait(tape)); });
  }

 private:
  std::function<Var(Tape& tape)> wait_;
};

// A collective that was started, and its memory.
struct InFlight {
  Handle handle;
  Tensor sent, received;
};
inline int64_t Bytes(const std::shared_ptr<InFlight>&) { return 0; }  // filled and emptied backward

// For ops with a collective inside. A Move is a copyable value with a `Bytes` that says how rows
// go:
//   InFlight Start(const Tensor& x, Communicator&, Context&) const;
//   Tensor Finish(InFlight, const Tensor& y, Context&) const;  // waits; into y where y is defined
//   Move Reversed() const;                                     // the way of the gradients

// Waits for gradients and hands them over.
template <class Move>
void FinishInto(const GradientSlot& slot, const Move& move, InFlight rows, Context& context) {
  if (!slot.accumulate) {
    move.Finish(std::move(rows), slot.tensor, context);
    return;
  }
  const Tensor part = move.Finish(std::move(rows), Tensor(), context);
  kernels::Cast({.x = part, .y = slot.tensor, .accumulate = true}, context);
}

// x by `move` over the communicator, which outlives the tape.
template <class Move>
RowsUnderWay StartMove(Tape& tape, const Var& x, const Move& move, Communicator* communicator) {
  const auto there =
      std::make_shared<InFlight>(move.Start(x.value(), *communicator, tape.context()));
  const Saved saved = tape.Save(move, "exchange");
  const Saved back = tape.Save(std::make_shared<InFlight>(), "exchange");
  // Nothing but an id between the two ops: the first runs backward when the second has.
  const Var start = tape.Record(tape.context().Empty(x.dtype(), {0}, "exchange.start"),
                                [=, x = x.id()](Tape& tape, const Tensor&) {
                                  InFlight& gradients = *tape.Load<std::shared_ptr<InFlight>>(back);
                                  FinishInto(tape.Gradient(x), tape.Load<Move>(saved).Reversed(),
                                             std::move(gradients), tape.context());
                                });
  return RowsUnderWay([=, start = start.id()](Tape& tape) {
    const Tensor y = move.Finish(std::move(*there), Tensor(), tape.context());
    return tape.Record(y, [=](Tape& tape, const Tensor& dy) {
      tape.Gradient(start);
      *tape.Load<std::shared_ptr<InFlight>>(back) =
          tape.Load<Move>(saved).Reversed().Start(dy, *communicator, tape.context());
    });
  });
}

}  // namespace moebius
