#include "kernels/ops/rms_norm.h"

#include "kernels/rms_norm.h"

namespace moebius::ops {
namespace {

Tensor GainOf(Tape& tape, Parameter* w) {
  return tape.Weight(w, WeightFormat::kPlain, w->value.dtype());
}

}  // namespace

Var RmsNorm(Tape& tape, const Var& x, Parameter* w, double epsilon) {
  const Tensor y = tape.context().Empty(x.dtype(), x.shape(), "rms_norm.y");
  kernels::RmsNorm(x.value(), GainOf(tape, w), epsilon, y, tape.context());

  const Saved saved_x = tape.Save(x.value(), "rms_norm.x");
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::RmsNormInputGradient({.dy = dy,
                                   .x = tape.Load(saved_x),
                                   .w = GainOf(tape, w),
                                   .epsilon = epsilon,
                                   .dx = dx.tensor,
                                   .accumulate = dx.accumulate},
                                  tape.context());
    const Saved saved_dy = tape.Save(dy, "rms_norm.dy");
    tape.WeightGradient({saved_x, saved_dy}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      kernels::RmsNormWeightGradient({.dy = tape.Load(saved_dy),
                                      .x = tape.Load(saved_x),
                                      .epsilon = epsilon,
                                      .dw = dw.tensor,
                                      .accumulate = dw.accumulate},
                                     tape.context());
    });
  });
}

}  // namespace moebius::ops
