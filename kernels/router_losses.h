// Losses on a router: balance over experts, and the z-loss that keeps its logits small.
//
// scores, logits [T, E] F64 | F32. document_ids [T] int32, or undefined: a token below zero is
// padding and left out. `divisor` is the number of tokens of the global batch that count, so that
// the values of all ranks and micro-batches add up to the loss of the global batch. Values are [1]
// F64; gradients are `coefficient` times the derivative of the value.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

struct RouterLossGradientArgs {
  double coefficient;
  Tensor dx;  // of scores or logits, [T, E]
  bool accumulate;
};

// value = 1 / divisor * sum_t E * sum_i fractions[t / tokens_per_group, i] * p[t, i]
// with p = scores, or scores / (their sum + 1e-20) where `normalize_scores` (sigmoid routers).
// With fractions that add up to 1 a balanced router has the value 1. The fractions are constants.
// Qiu et al., "Demons in the Detail", 2025, equation 2; one group: the scope is the micro-batch or
// the global batch, one group a sequence: the scope is the sequence.
struct BalanceLossOptions {
  Tensor fractions;  // [groups, E] of the dtype of scores
  Tensor document_ids = {};
  int64_t tokens_per_group;
  bool normalize_scores = false;
  double divisor;
};
Tensor BalanceLoss(const Tensor& scores, const BalanceLossOptions& options, Context& ctx);

void BalanceLossGradient(const Tensor& scores, const BalanceLossOptions& options,
                         const RouterLossGradientArgs& gradient, Context& ctx);

// value = 1 / divisor * sum_t (log sum_i exp logits[t, i])^2
// Zoph et al., "ST-MoE", 2022, equation 5.
struct ZLossOptions {
  Tensor document_ids = {};
  double divisor;
};
Tensor ZLoss(const Tensor& logits, const ZLossOptions& options, Context& ctx);
void ZLossGradient(const Tensor& logits, const ZLossOptions& options,
                   const RouterLossGradientArgs& gradient, Context& ctx);

}  // namespace moebius::kernels
