#include "kernels/ops/rotary.h"

#include "kernels/rotary.h"

namespace moebius::ops {

Var Rotary(Tape& tape, const Var& x, const Tensor& positions, int64_t head_dim, double theta) {
  const Tensor y = tape.context().Empty(x.dtype(), x.shape(), "rotary.y");
  kernels::Rotary(
      {.x = x.value(), .positions = positions, .head_dim = head_dim, .theta = theta, .y = y},
      tape.context());

  const Saved saved_positions = tape.Save(positions, "rotary.positions");
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::Rotary({.x = dy,
                     .positions = tape.Load(saved_positions),
                     .head_dim = head_dim,
                     .theta = theta,
                     .y = dx.tensor,
                     .inverse = true,
                     .accumulate = dx.accumulate},
                    tape.context());
  });
}

}  // namespace moebius::ops
