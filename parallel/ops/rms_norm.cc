#include "parallel/ops/rms_norm.h"

#include "kernels/rms_norm.h"

namespace moebius {
namespace {

Tensor GainOf(Tape& tape, Parameter* w) {
  return tape.Weight(w, WeightFormat::kPlain, w->value.dtype());
}

// [T] F64, over the columns of all ranks.
Tensor SumOverRanks(const Tensor& a, const Tensor& b, const Tensor& w, Communicator& communicator,
                    Context& context) {
  const Tensor sums = context.Empty(DType::kF64, {a.shape()[0]}, "rms_norm.sums");
  kernels::RowProducts({.a = a, .b = b, .w = w, .sums = sums}, context);
  communicator.AllReduce(sums).Wait();
  return sums;
}

}  // namespace

Var RmsNormOverRanks(Tape& tape, const Var& x, Parameter* w, double epsilon,
                     Communicator* communicator) {
  const auto [T, C] = Dims<2>(x.value());
  const int64_t width = C * communicator->size();
  Context& context = tape.context();
  const auto squares = tape.Once(
      [&] { return SumOverRanks(x.value(), x.value(), Tensor(), *communicator, context); });
  const Tensor y = context.Empty(x.dtype(), x.shape(), "rms_norm.y");
  kernels::RmsNorm(x.value(), GainOf(tape, w), epsilon, y, context,
                   {.width = width, .squares = squares});

  const Saved saved_x = tape.Save(x.value(), "rms_norm.x");
  const Saved saved_squares = tape.Save(squares, "rms_norm.squares");
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const Tensor &x_value = tape.Load(saved_x), &squares = tape.Load(saved_squares);
    const Tensor gain = GainOf(tape, w);
    const GradientSlot dx = tape.Gradient(x);
    kernels::RmsNormInputGradient(
        {.dy = dy,
         .x = x_value,
         .w = gain,
         .epsilon = epsilon,
         .dx = dx.tensor,
         .accumulate = dx.accumulate,
         .whole = {.width = width,
                   .squares = squares,
                   .products = SumOverRanks(dy, x_value, gain, *communicator, tape.context())}},
        tape.context());
    const Saved saved_dy = tape.Save(dy, "rms_norm.dy");
    tape.WeightGradient({saved_x, saved_squares, saved_dy}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      kernels::RmsNormWeightGradient(
          {.dy = tape.Load(saved_dy),
           .x = tape.Load(saved_x),
           .epsilon = epsilon,
           .dw = dw.tensor,
           .accumulate = dw.accumulate,
           .whole = {.width = width, .squares = tape.Load(saved_squares)}},
          tape.context());
    });
  });
}

}  // namespace moebius
