#include "kernels/ops/router_losses.h"

namespace moebius::ops {
namespace {

// An undefined mask stays undefined.
Saved SaveMask(Tape& tape, const Tensor& document_ids) {
  return document_ids.defined() ? tape.Save(document_ids, "router_loss.document_ids") : Saved{};
}

Tensor LoadMask(const Tape& tape, Saved saved) {
  return saved.index < 0 ? Tensor() : tape.Load(saved);
}

}  // namespace

Tensor BalanceLoss(Tape& tape, const Var& scores, const kernels::BalanceLossOptions& options,
                   double coefficient) {
  const Saved saved_scores = tape.Save(scores.value(), "balance_loss.scores");
  const Saved saved_fractions = tape.Save(options.fractions, "balance_loss.fractions");
  const Saved saved_mask = SaveMask(tape, options.document_ids);
  tape.RecordLoss([=, scores = scores.id(), tokens_per_group = options.tokens_per_group,
                   normalize_scores = options.normalize_scores,
                   divisor = options.divisor](Tape& tape) {
    const GradientSlot dscores = tape.Gradient(scores);
    kernels::BalanceLossGradient(
        tape.Load(saved_scores),
        {.fractions = tape.Load(saved_fractions),
         .document_ids = LoadMask(tape, saved_mask),
         .tokens_per_group = tokens_per_group,
         .normalize_scores = normalize_scores,
         .divisor = divisor},
        {.coefficient = coefficient, .dx = dscores.tensor, .accumulate = dscores.accumulate},
        tape.context());
  });
  return kernels::BalanceLoss(scores.value(), options, tape.context());
}

Tensor ZLoss(Tape& tape, const Var& logits, const kernels::ZLossOptions& options,
             double coefficient) {
  const Saved saved_logits = tape.Save(logits.value(), "z_loss.logits");
  const Saved saved_mask = SaveMask(tape, options.document_ids);
  tape.RecordLoss([=, logits = logits.id(), divisor = options.divisor](Tape& tape) {
    const GradientSlot dlogits = tape.Gradient(logits);
    kernels::ZLossGradient(
        tape.Load(saved_logits), {.document_ids = LoadMask(tape, saved_mask), .divisor = divisor},
        {.coefficient = coefficient, .dx = dlogits.tensor, .accumulate = dlogits.accumulate},
        tape.context());
  });
  return kernels::ZLoss(logits.value(), options, tape.context());
}

}  // namespace moebius::ops
