#include "kernels/ops/linear.h"

#include "kernels/linear.h"
#include "kernels/ops/routing.h"
#include "kernels/routing.h"

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

// What ExpertsToTokens keeps; weights by row.
struct SummedRows {
  VarId rows, weights;
  Saved saved_rows, saved_weights;
  SavedPlan saved_plan;
  Saved saved_tokens;
};

// The gradient of a weight, that of y = sum of weight * w row, is dy's product with w and with the
// row: so the products of the rows are neither kept nor made again.
void Backward(Tape& tape, const Tensor& dy, const SummedRows& summed, Parameter* w) {
  Context& context = tape.context();
  const RoutingPlan plan = LoadPlan(tape, summed.saved_plan);
  const Tensor &x = tape.Load(summed.saved_rows), &weights = tape.Load(summed.saved_weights);
  const Tensor product = context.Empty(x.dtype(), x.shape(), "linear.dx");
  kernels::LinearInputGradient({.dy = dy,
                                .w = tape.Weight(w, WeightFormat::kPackedTransposed, x.dtype()),
                                .offsets = plan.expert_offsets,
                                .dx = product,
                                .rows = tape.Load(summed.saved_tokens)},
                               context);
  const GradientSlot drows = tape.Gradient(summed.rows), dweights = tape.Gradient(summed.weights);
  const Tensor by_row = context.Empty(weights.dtype(), weights.shape(), "pair_weights.by_row");
  kernels::WeighRowsGradient({.dy = product,
                              .x = x,
                              .weights = weights,
                              .dx = drows.tensor,
                              .accumulate_dx = drows.accumulate,
                              .dweights = by_row,
                              .weighted = product},
                             context);
  kernels::WeightsByRowGradient(
      {.dy = by_row, .plan = plan, .dweights = dweights.tensor, .accumulate = dweights.accumulate},
      context);
  const Saved weighted = tape.Save(product, "linear.x"), saved_dy = tape.Save(dy, "linear.dy");
  const Saved offsets = summed.saved_plan.expert_offsets, tokens = summed.saved_tokens;
  tape.WeightGradient({weighted, saved_dy, offsets, tokens}, [=](Tape& tape) {
    const GradientSlot dw = tape.ParameterGradient(w);
    kernels::LinearWeightGradient({.dy = tape.Load(saved_dy),
                                   .x = tape.Load(weighted),
                                   .offsets = tape.Load(offsets),
                                   .dw = dw.tensor,
                                   .accumulate = dw.accumulate,
                                   .dy_rows = tape.Load(tokens)},
                                  tape.context());
  });
}

}  // namespace

Var Linear(Tape& tape, const Var& x, Parameter* w) { return Product(tape, x, Tensor(), w); }

Var GroupedLinear(Tape& tape, const Var& rows, const Tensor& offsets, Parameter* w) {
  CHECK(offsets.defined());
  return Product(tape, rows, offsets, w);
}

Var TokensToExperts(Tape& tape, const Var& x, const RoutingPlan& plan, const Tensor& tokens,
                    Parameter* w) {
  const DType compute = x.dtype();
  const Tensor y =
      tape.context().Empty(compute, {plan.num_pairs(), w->value.shape()[1]}, "linear.y");
  kernels::Linear({.x = x.value(),
                   .w = tape.Weight(w, WeightFormat::kPacked, compute),
                   .offsets = plan.expert_offsets,
                   .y = y,
                   .rows = tokens},
                  tape.context());

  const Saved saved_x = tape.Save(x.value(), "linear.x");
  const Saved saved_offsets = tape.Save(plan.expert_offsets, "plan");
  const Saved saved_tokens = tape.Save(tokens, "plan");
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::LinearSum({.x = dy,
                        .w = tape.Weight(w, WeightFormat::kPackedTransposed, compute),
                        .format = WeightFormat::kPackedTransposed,
                        .offsets = tape.Load(saved_offsets),
                        .rows = tape.Load(saved_tokens),
                        .y = dx.tensor,
                        .accumulate = dx.accumulate},
                       tape.context());
    const Saved saved_dy = tape.Save(dy, "linear.dy");
    tape.WeightGradient({saved_x, saved_dy, saved_offsets, saved_tokens}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      kernels::LinearWeightGradient({.dy = tape.Load(saved_dy),
                                     .x = tape.Load(saved_x),
                                     .offsets = tape.Load(saved_offsets),
                                     .dw = dw.tensor,
                                     .accumulate = dw.accumulate,
                                     .x_rows = tape.Load(saved_tokens)},
                                    tape.context());
    });
  });
}

Var ExpertsToTokens(Tape& tape, const Var& rows, const Var& weights, const RoutingPlan& plan,
                    const Tensor& tokens, Parameter* w) {
  Context& context = tape.context();
  const DType compute = rows.dtype();
  const Tensor by_row = context.Empty(weights.dtype(), weights.shape(), "pair_weights.by_row");
  kernels::WeightsByRow(weights.value(), plan, by_row, context);
  const Tensor y = context.Empty(compute, {plan.num_tokens(), w->value.shape()[1]}, "linear.y");
  kernels::LinearSum({.x = rows.value(),
                      .w = tape.Weight(w, WeightFormat::kPacked, compute),
                      .format = WeightFormat::kPacked,
                      .offsets = plan.expert_offsets,
                      .rows = tokens,
                      .weights = by_row,
                      .y = y},
                     context);

  const Saved saved_rows = tape.Save(rows.value(), "linear.x");
  const Saved saved_weights = tape.Save(by_row, "combine.weights");
  const SavedPlan saved_plan = SavePlan(tape, plan);
  const Saved saved_tokens = tape.Save(tokens, "plan");
  const SummedRows summed = {rows.id(),     weights.id(), saved_rows,
                             saved_weights, saved_plan,   saved_tokens};
  return tape.Record(y, [=](Tape& tape, const Tensor& dy) { Backward(tape, dy, summed, w); });
}

}  // namespace moebius::ops
