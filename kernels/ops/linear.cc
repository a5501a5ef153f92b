#include "kernels/ops/linear.h"

#include "kernels/linear.h"
#include "kernels/ops/linear_rows.h"

namespace moebius::ops {
namespace {

// dx (+)= the rows dy of w's outputs, each to where its row of x stands.
void InputGradient(Tape& tape, const Tensor& dy, const ProductRows& rows, Parameter* w,
                   const GradientSlot& dx) {
  const Tensor image = tape.Weight(w, WeightFormat::kPackedTransposed, dy.dtype());
  if (rows.tokens.defined()) {
    return kernels::LinearSum({.x = dy,
                               .w = image,
                               .format = WeightFormat::kPackedTransposed,
                               .offsets = rows.offsets,
                               .rows = rows.tokens,
                               .y = dx.tensor,
                               .accumulate = dx.accumulate},
                              tape.context());
  }
  kernels::LinearInputGradient(
      {.dy = dy, .w = image, .offsets = rows.offsets, .dx = dx.tensor, .accumulate = dx.accumulate},
      tape.context());
}

}  // namespace

SavedRows::SavedRows(Tape& tape, const ProductRows& rows, Saved other)
    : offsets(rows.offsets.defined() ? tape.Save(rows.offsets, "linear.offsets") : other),
      tokens(rows.tokens.defined() ? tape.Save(rows.tokens, "linear.tokens") : other),
      has_offsets_(rows.offsets.defined()),
      has_tokens_(rows.tokens.defined()) {}

ProductRows SavedRows::Load(const Tape& tape) const {
  return {has_offsets_ ? tape.Load(offsets) : Tensor(), has_tokens_ ? tape.Load(tokens) : Tensor()};
}

void AddWeightGradient(Tape& tape, const SavedOperand& dy, const SavedOperand& x,
                       const SavedRows& rows, Parameter* w) {
  tape.WeightGradient({x.tensor, dy.tensor, rows.offsets, rows.tokens}, [=](Tape& passed) {
    const auto [offsets, tokens] = rows.Load(passed);
    const GradientSlot dw = passed.ParameterGradient(w);
    kernels::LinearWeightGradient({.dy = passed.Load(dy.tensor),
                                   .x = passed.Load(x.tensor),
                                   .offsets = offsets,
                                   .dw = dw.tensor,
                                   .accumulate = dw.accumulate,
                                   .dy_rows = dy.by_tokens ? tokens : Tensor(),
                                   .x_rows = x.by_tokens ? tokens : Tensor()},
                                  passed.context());
  });
}

Var LinearOfRows(Tape& tape, const Var& x, const ProductRows& rows, Parameter* w,
                 const SwiGluOfProduct& swiglu) {
  const Shape& shape = w->value.shape();
  CHECK_EQ(Dims<2>(x.value())[1], shape[shape.rank() - 1]) << w->name;
  const int64_t R = rows.tokens.defined() ? rows.tokens.size() : x.shape()[0];
  const Tensor y = tape.context().Empty(x.dtype(), {R, shape[shape.rank() - 2]}, "linear.y");
  kernels::Linear({.x = x.value(),
                   .w = tape.Weight(w, WeightFormat::kPacked, x.dtype()),
                   .offsets = rows.offsets,
                   .y = y,
                   .rows = rows.tokens,
                   .gate = swiglu.gate,
                   .h = swiglu.h},
                  tape.context());

  const Saved saved_x = tape.Save(x.value(), "linear.x");
  const SavedRows saved(tape, rows, saved_x);
  return tape.Record(y, [=, x = x.id()](Tape& passed, const Tensor& dy) {
    InputGradient(passed, dy, saved.Load(passed), w, passed.Gradient(x));
    AddWeightGradient(passed, {passed.Save(dy, "linear.dy")}, {saved_x, /*by_tokens=*/true}, saved,
                      w);
  });
}

Var LinearOfRows(Tape& tape, const Var& x, const ProductRows& rows, Parameter* w) {
  return LinearOfRows(tape, x, rows, w, SwiGluOfProduct{});
}

Var Linear(Tape& tape, const Var& x, Parameter* w) { return LinearOfRows(tape, x, {}, w); }

}  // namespace moebius::ops
