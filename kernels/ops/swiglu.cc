#include "kernels/ops/swiglu.h"

#include "kernels/linear.h"
#include "kernels/ops/linear_rows.h"
#include "kernels/ops/routing.h"
#include "kernels/routing.h"

namespace moebius::ops {
namespace {

// What backward needs of GatedRows and of the rows of down.
struct SavedHidden {
  SavedHidden(Tape& tape, const GatedRows& hidden, const ProductRows& rows)
      : gate_id(hidden.gate.id()),
        up_id(hidden.up.id()),
        gate(tape.Save(hidden.gate.value(), "swiglu.gate")),
        up(tape.Save(hidden.up.value(), "swiglu.up")),
        rows(tape, rows, gate) {}

  VarId gate_id, up_id;
  Saved gate, up;
  SavedRows rows;
};

// The gradient of y = the sum of weight * down h: that of down is dy's product with weight * h,
// which is made again on the way. `weights` by row, or undefined; dweights is then written.
void DownGradient(Tape& tape, const Tensor& dy, const SavedHidden& saved, const Tensor& weights,
                  const Tensor& dweights, Parameter* down) {
  Context& context = tape.context();
  const ProductRows rows = saved.rows.Load(tape);
  const Tensor gate = tape.Load(saved.gate), up = tape.Load(saved.up);
  const Tensor h = context.Empty(gate.dtype(), gate.shape(), "swiglu.h");
  const GradientSlot dgate = tape.Gradient(saved.gate_id), dup = tape.Gradient(saved.up_id);
  CHECK(!dgate.accumulate && !dup.accumulate) << "gate and up have one use";
  kernels::LinearSwiGluGradient(
      {.dy = dy,
       .w = tape.Weight(down, WeightFormat::kPackedTransposed, dy.dtype()),
       .offsets = rows.offsets,
       .rows = rows.tokens,
       .weights = weights,
       .gate = gate,
       .up = up,
       .dgate = dgate.tensor,
       .dup = dup.tensor,
       .h = h,
       .dweights = dweights},
      context);
  AddWeightGradient(tape, {tape.Save(dy, "linear.dy"), /*by_tokens=*/true},
                    {tape.Save(h, "swiglu.h")}, saved.rows, down);
}

}  // namespace

GatedRows GateAndUp(Tape& tape, const Var& x, const ProductRows& rows, Parameter* gate_weight,
                    Parameter* up_weight) {
  const Var gate = LinearOfRows(tape, x, rows, gate_weight);
  const Tensor h = tape.context().Empty(gate.dtype(), gate.shape(), "swiglu.h");
  const Var up = LinearOfRows(tape, x, rows, up_weight, {.gate = gate.value(), .h = h});
  return {gate, up, tape.Input(h)};
}

Var Down(Tape& tape, const GatedRows& hidden, const Tensor& offsets, Parameter* down) {
  const Tensor& h = hidden.h.value();
  const Shape& shape = down->value.shape();
  CHECK_EQ(h.shape()[1], shape[shape.rank() - 1]) << down->name;
  const Tensor y =
      tape.context().Empty(h.dtype(), {h.shape()[0], shape[shape.rank() - 2]}, "linear.y");
  kernels::Linear({.x = h,
                   .w = tape.Weight(down, WeightFormat::kPacked, h.dtype()),
                   .offsets = offsets,
                   .y = y},
                  tape.context());

  const SavedHidden saved(tape, hidden, {.offsets = offsets});
  return tape.Record(y, [=](Tape& passed, const Tensor& dy) {
    DownGradient(passed, dy, saved, Tensor(), Tensor(), down);
  });
}

Var DownToTokens(Tape& tape, const GatedRows& hidden, const Var& weights, const RoutingPlan& plan,
                 const Tensor& tokens, Parameter* down) {
  Context& context = tape.context();
  const Tensor& h = hidden.h.value();
  const auto [e, D, F] = Dims<3>(down->value);
  CHECK_EQ(h.shape()[1], F) << down->name;
  const Tensor by_row = context.Empty(weights.dtype(), weights.shape(), "pair_weights.by_row");
  kernels::WeightsByRow(weights.value(), plan, by_row, context);
  const Tensor y = context.Empty(h.dtype(), {plan.num_tokens(), D}, "linear.y");
  kernels::LinearSum({.x = h,
                      .w = tape.Weight(down, WeightFormat::kPacked, h.dtype()),
                      .format = WeightFormat::kPacked,
                      .offsets = plan.expert_offsets,
                      .rows = tokens,
                      .weights = by_row,
                      .y = y},
                     context);

  const SavedHidden saved(tape, hidden, {plan.expert_offsets, tokens});
  const Saved saved_weights = tape.Save(by_row, "combine.weights");
  const SavedPlan saved_plan = SavePlan(tape, plan);
  return tape.Record(y, [=, weights = weights.id()](Tape& passed, const Tensor& dy) {
    const Tensor by_row = passed.Load(saved_weights);
    const Tensor dby_row =
        passed.context().Empty(by_row.dtype(), by_row.shape(), "pair_weights.by_row");
    DownGradient(passed, dy, saved, by_row, dby_row, down);
    const GradientSlot dweights = passed.Gradient(weights);
    kernels::WeightsByRowGradient({.dy = dby_row,
                                   .plan = LoadPlan(passed, saved_plan),
                                   .dweights = dweights.tensor,
                                   .accumulate = dweights.accumulate},
                                  passed.context());
  });
}

}  // namespace moebius::ops
