#include "kernels/ops/elementwise.h"

#include "kernels/elementwise.h"

namespace moebius::ops {
namespace {

void PassGradient(Tape& tape, const Tensor& dy, VarId x) {
  const GradientSlot dx = tape.Gradient(x);
  kernels::Cast({.x = dy, .y = dx.tensor, .accumulate = dx.accumulate}, tape.context());
}

}  // namespace

Var Add(Tape& tape, const Var& a, const Var& b) {
  const Tensor y = tape.context().Empty(a.dtype(), a.shape(), "add.y");
  kernels::Add(a.value(), b.value(), y, tape.context());
  return tape.Record(y, [a = a.id(), b = b.id()](Tape& tape, const Tensor& dy) {
    PassGradient(tape, dy, b);
    PassGradient(tape, dy, a);
  });
}

Var Cast(Tape& tape, const Var& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  const Tensor y = tape.context().Empty(dtype, x.shape(), "cast.y");
  kernels::Cast({.x = x.value(), .y = y}, tape.context());
  return tape.Record(y, [x = x.id()](Tape& tape, const Tensor& dy) { PassGradient(tape, dy, x); });
}

}  // namespace moebius::ops
