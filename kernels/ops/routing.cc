#include "kernels/ops/routing.h"

#include "kernels/routing.h"

namespace moebius::ops {

SavedPlan SavePlan(Tape& tape, const RoutingPlan& plan) {
  return {tape.Save(plan.token_offsets, "plan"), tape.Save(plan.expert, "plan"),
          tape.Save(plan.expert_offsets, "plan"), tape.Save(plan.row, "plan")};
}

RoutingPlan LoadPlan(const Tape& tape, const SavedPlan& saved) {
  return {tape.Load(saved.token_offsets), tape.Load(saved.expert), tape.Load(saved.expert_offsets),
          tape.Load(saved.row)};
}

Var PairWeights(Tape& tape, const Var& scores, const RoutingPlan& plan, bool renormalize,
                double scale) {
  const Tensor weights =
      tape.context().Empty(scores.dtype(), {plan.num_pairs()}, "pair_weights.weights");
  kernels::PairWeights({.scores = scores.value(),
                        .plan = plan,
                        .renormalize = renormalize,
                        .scale = scale,
                        .weights = weights},
                       tape.context());

  const Saved saved_scores = tape.Save(scores.value(), "pair_weights.scores");
  const SavedPlan saved_plan = SavePlan(tape, plan);
  return tape.Record(weights, [=, scores = scores.id()](Tape& tape, const Tensor& dweights) {
    const GradientSlot dscores = tape.Gradient(scores);
    kernels::PairWeightsGradient({.scores = tape.Load(saved_scores),
                                  .plan = LoadPlan(tape, saved_plan),
                                  .renormalize = renormalize,
                                  .scale = scale,
                                  .dweights = dweights,
                                  .dscores = dscores.tensor,
                                  .accumulate = dscores.accumulate},
                                 tape.context());
  });
}

Var Permute(Tape& tape, const Var& x, const RoutingPlan& plan) {
  const auto [T, D] = Dims<2>(x.value());
  const Tensor rows = tape.context().Empty(x.dtype(), {plan.num_pairs(), D}, "permute.rows");
  kernels::Permute(x.value(), plan, rows, tape.context());

  const SavedPlan saved_plan = SavePlan(tape, plan);
  return tape.Record(rows, [=, x = x.id()](Tape& tape, const Tensor& drows) {
    const GradientSlot dx = tape.Gradient(x);
    kernels::PermuteGradient({.drows = drows,
                              .plan = LoadPlan(tape, saved_plan),
                              .dx = dx.tensor,
                              .accumulate = dx.accumulate},
                             tape.context());
  });
}

Var Combine(Tape& tape, const Var& rows, const Var& weights, const RoutingPlan& plan) {
  const auto [P, D] = Dims<2>(rows.value());
  const Tensor y = tape.context().Empty(rows.dtype(), {plan.num_tokens(), D}, "combine.y");
  kernels::Combine(rows.value(), weights.value(), plan, y, tape.context());

  const Saved saved_rows = tape.Save(rows.value(), "combine.rows");
  const Saved saved_weights = tape.Save(weights.value(), "combine.weights");
  const SavedPlan saved_plan = SavePlan(tape, plan);
  return tape.Record(
      y, [=, rows = rows.id(), weights = weights.id()](Tape& tape, const Tensor& dy) {
        const GradientSlot drows = tape.Gradient(rows), dweights = tape.Gradient(weights);
        kernels::CombineGradient({.dy = dy,
                                  .rows = tape.Load(saved_rows),
                                  .weights = tape.Load(saved_weights),
                                  .plan = LoadPlan(tape, saved_plan),
                                  .drows = drows.tensor,
                                  .accumulate_drows = drows.accumulate,
                                  .dweights = dweights.tensor,
                                  .accumulate_dweights = dweights.accumulate},
                                 tape.context());
      });
}

}  // namespace moebius::ops
