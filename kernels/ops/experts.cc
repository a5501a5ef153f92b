#include "kernels/ops/experts.h"

#include "kernels/linear.h"
#include "kernels/ops/routing.h"
#include "kernels/routing.h"

namespace moebius::ops {
namespace {

// Rows of experts, in an operand x; `tokens` undefined: row r stands at r.
struct Rows {
  Tensor x, offsets, tokens;
  int64_t size() const { return tokens.defined() ? tokens.size() : x.shape()[0]; }
};

struct Hidden {
  Tensor gate, up, h;  // [R, F]
};

Hidden Forward(Tape& tape, const Rows& rows, const ExpertWeights& w) {
  Context& context = tape.context();
  const DType compute = rows.x.dtype();
  const auto [e, F, D] = Dims<3>(w.gate->value);
  CHECK_EQ(D, rows.x.shape()[1]) << w.gate->name;
  CHECK_EQ(w.up->value.shape(), (Shape{e, F, D})) << w.up->name;
  CHECK_EQ(w.down->value.shape(), (Shape{e, D, F})) << w.down->name;
  const Shape shape = {rows.size(), F};
  const Hidden hidden = {context.Empty(compute, shape, "experts.gate"),
                         context.Empty(compute, shape, "experts.up"),
                         context.Empty(compute, shape, "experts.h")};
  kernels::Linear({.x = rows.x,
                   .w = tape.Weight(w.gate, WeightFormat::kPacked, compute),
                   .offsets = rows.offsets,
                   .y = hidden.gate,
                   .rows = rows.tokens},
                  context);
  kernels::Linear({.x = rows.x,
                   .w = tape.Weight(w.up, WeightFormat::kPacked, compute),
                   .offsets = rows.offsets,
                   .y = hidden.up,
                   .rows = rows.tokens,
                   .gate = hidden.gate,
                   .h = hidden.h},
                  context);
  return hidden;
}

// What backward needs of rows. Undefined tokens are not saved.
struct SavedRows {
  SavedRows(Tape& tape, const Rows& rows, const Hidden& hidden)
      : x(tape.Save(rows.x, "experts.x")),
        offsets(tape.Save(rows.offsets, "experts.offsets")),
        gate(tape.Save(hidden.gate, "experts.gate")),
        up(tape.Save(hidden.up, "experts.up")),
        elsewhere(rows.tokens.defined()),
        tokens(elsewhere ? tape.Save(rows.tokens, "plan") : offsets) {}

  Rows Load(Tape& tape) const {
    return {tape.Load(x), tape.Load(offsets), elsewhere ? tape.Load(tokens) : Tensor()};
  }

  Saved x, offsets, gate, up;
  bool elsewhere;
  Saved tokens;
};

// dw (+)= dy^T x of the rows of either, once the tape comes to it. Each: whether it is read by
// tokens, or row by row.
struct Operand {
  Saved saved;
  bool by_tokens;
};
void WeightGradient(Tape& tape, const Operand& dy, const Operand& x, const SavedRows& rows,
                    Parameter* w) {
  tape.WeightGradient({x.saved, dy.saved, rows.offsets, rows.tokens}, [=](Tape& passed) {
    const auto tokens = [&](bool by_tokens) {
      return by_tokens && rows.elsewhere ? passed.Load(rows.tokens) : Tensor();
    };
    const GradientSlot dw = passed.ParameterGradient(w);
    kernels::LinearWeightGradient({.dy = passed.Load(dy.saved),
                                   .x = passed.Load(x.saved),
                                   .offsets = passed.Load(rows.offsets),
                                   .dw = dw.tensor,
                                   .accumulate = dw.accumulate,
                                   .dy_rows = tokens(dy.by_tokens),
                                   .x_rows = tokens(x.by_tokens)},
                                  passed.context());
  });
}

// dx (+)= the rows dy of `w`'s outputs, each to where its row of x stands.
void InputGradient(Tape& tape, const Tensor& dy, const Rows& rows, Parameter* w,
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

// The gradient of a weight, that of y = sum of weight * down h, is dy's product with down and with
// h: so the products of the rows are neither kept nor made again. `weights` by row, or undefined;
// dweights is then written.
void Backward(Tape& tape, const Tensor& dy, VarId x, const SavedRows& saved, const Tensor& weights,
              const Tensor& dweights, const ExpertWeights& w) {
  Context& context = tape.context();
  const Rows rows = saved.Load(tape);
  const Tensor gate = tape.Load(saved.gate), up = tape.Load(saved.up);
  const Tensor dgate = context.Empty(gate.dtype(), gate.shape(), "experts.dgate");
  const Tensor dup = context.Empty(gate.dtype(), gate.shape(), "experts.dup");
  const Tensor h = context.Empty(gate.dtype(), gate.shape(), "experts.h");
  kernels::LinearSwiGluGradient(
      {.dy = dy,
       .w = tape.Weight(w.down, WeightFormat::kPackedTransposed, dy.dtype()),
       .offsets = rows.offsets,
       .rows = rows.tokens,
       .weights = weights,
       .gate = gate,
       .up = up,
       .dgate = dgate,
       .dup = dup,
       .h = h,
       .dweights = dweights},
      context);
  WeightGradient(tape, {tape.Save(dy, "experts.dy"), true}, {tape.Save(h, "experts.h"), false},
                 saved, w.down);
  GradientSlot dx = tape.Gradient(x);
  InputGradient(tape, dup, rows, w.up, dx);
  WeightGradient(tape, {tape.Save(dup, "experts.dup"), false}, {saved.x, true}, saved, w.up);
  dx.accumulate = true;
  InputGradient(tape, dgate, rows, w.gate, dx);
  WeightGradient(tape, {tape.Save(dgate, "experts.dgate"), false}, {saved.x, true}, saved, w.gate);
}

}  // namespace

Var ExpertsOfRows(Tape& tape, const Var& rows, const Tensor& offsets, const ExpertWeights& w) {
  Context& context = tape.context();
  const Rows all = {rows.value(), offsets, Tensor()};
  const Hidden hidden = Forward(tape, all, w);
  const Tensor y = context.Empty(rows.dtype(), rows.shape(), "experts.y");
  kernels::Linear({.x = hidden.h,
                   .w = tape.Weight(w.down, WeightFormat::kPacked, rows.dtype()),
                   .offsets = offsets,
                   .y = y},
                  context);

  const SavedRows saved(tape, all, hidden);
  return tape.Record(y, [=, x = rows.id()](Tape& passed, const Tensor& dy) {
    Backward(passed, dy, x, saved, Tensor(), Tensor(), w);
  });
}

Var ExpertsOfTokens(Tape& tape, const Var& x, const Var& weights, const RoutingPlan& plan,
                    const Tensor& tokens, const ExpertWeights& w) {
  Context& context = tape.context();
  const Rows rows = {x.value(), plan.expert_offsets, tokens};
  const Hidden hidden = Forward(tape, rows, w);
  const Tensor by_row = context.Empty(weights.dtype(), weights.shape(), "pair_weights.by_row");
  kernels::WeightsByRow(weights.value(), plan, by_row, context);
  const Tensor y = context.Empty(x.dtype(), x.shape(), "experts.y");
  kernels::LinearSum({.x = hidden.h,
                      .w = tape.Weight(w.down, WeightFormat::kPacked, x.dtype()),
                      .format = WeightFormat::kPacked,
                      .offsets = plan.expert_offsets,
                      .rows = tokens,
                      .weights = by_row,
                      .y = y},
                     context);

  const SavedRows saved(tape, rows, hidden);
  const Saved saved_weights = tape.Save(by_row, "combine.weights");
  const SavedPlan saved_plan = SavePlan(tape, plan);
  return tape.Record(y, [=, x = x.id(), weights = weights.id()](Tape& passed, const Tensor& dy) {
    const Tensor by_row = passed.Load(saved_weights);
    const Tensor dby_row =
        passed.context().Empty(by_row.dtype(), by_row.shape(), "pair_weights.by_row");
    Backward(passed, dy, x, saved, by_row, dby_row, w);
    const GradientSlot dweights = passed.Gradient(weights);
    kernels::WeightsByRowGradient({.dy = dby_row,
                                   .plan = LoadPlan(passed, saved_plan),
                                   .dweights = dweights.tensor,
                                   .accumulate = dweights.accumulate},
                                  passed.context());
  });
}

}  // namespace moebius::ops
