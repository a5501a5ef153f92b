#include "kernels/ops/linear.h"

#include "kernels/linear.h"

namespace moebius::ops {
namespace {

// `offsets` undefined: one matrix for all rows.
Var Product(Tape& tape, const Var& x, const Tensor& offsets, Parameter* w) {
  const auto [R, D] = Dims<2>(x.value());
  const Shape& w_shape = w->value.shape();
  const int64_t N = w_shape[w_shape.rank() - 2];
  CHECK_EQ(D, w_shape[w_shape.rank() - 1]) << w->name;
  const DType compute = x.dtype();

  const Tensor y = tape.context().Empty(compute, {R, N}, "linear.y");
  kernels::Linear({.x = x.value(),
                   .w = tape.Weight(w, WeightFormat::kPacked, compute),
                   .offsets = offsets,
                   .y = y},
                  tape.context());

  const bool grouped = offsets.defined();
  const Saved saved_x = tape.Save(x.value(), "linear.x");
  const Saved saved_offsets = grouped ? tape.Save(offsets, "linear.offsets") : saved_x;
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::LinearInputGradient({.dy = dy,
                                  .w = tape.Weight(w, WeightFormat::kPackedTransposed, compute),
                                  .offsets = grouped ? tape.Load(saved_offsets) : Tensor(),
                                  .dx = dx.tensor,
                                  .accumulate = dx.accumulate},
                                 tape.context());
    const Saved saved_dy = tape.Save(dy, "linear.dy");
    tape.WeightGradient({saved_x, saved_dy, saved_offsets}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      kernels::LinearWeightGradient({.dy = tape.Load(saved_dy),
                                     .x = tape.Load(saved_x),
                                     .offsets = grouped ? tape.Load(saved_offsets) : Tensor(),
                                     .dw = dw.tensor,
                                     .accumulate = dw.accumulate},
                                    tape.context());
    });
  });
}

}  // namespace

Var Linear(Tape& tape, const Var& x, Parameter* w) { return Product(tape, x, Tensor(), w); }

Var GroupedLinear(Tape& tape, const Var& rows, const Tensor& offsets, Parameter* w) {
  CHECK(offsets.defined());
  return Product(tape, rows, offsets, w);
}

}  // namespace moebius::ops
