#include "kernels/ops/columns.h"

#include "kernels/columns.h"

namespace moebius::ops {

Var Columns(Tape& tape, const Var& x, int64_t begin, int64_t end) {
  const auto [T, N] = Dims<2>(x.value());
  CHECK(begin <= end) << begin << " .. " << end;
  if (begin == 0 && end == N) return x;
  const Tensor y = tape.context().Empty(x.dtype(), {T, end - begin}, "columns.y");
  kernels::Columns(x.value(), begin, y, tape.context());
  return tape.Record(y, [begin, x = x.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::ColumnsGradient(
        {.dy = dy, .begin = begin, .dx = dx.tensor, .accumulate = dx.accumulate}, tape.context());
  });
}

}  // namespace moebius::ops
