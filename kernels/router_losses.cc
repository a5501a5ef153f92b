#include "kernels/router_losses.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckTokens(const Tensor& x, const Tensor& document_ids, double divisor) {
  const auto [T, E] = Dims<2>(x);
  CHECK_GE(E, 1);
  CheckDType(x, PreciseDType(x.dtype()));
  CHECK(divisor > 0) << divisor;
  if (!document_ids.defined()) return;
  CHECK_EQ(document_ids.shape(), (Shape{T}));
  CheckDType(document_ids, DType::kI32);
}

void CheckBalance(const Tensor& scores, const BalanceLossOptions& options) {
  CheckTokens(scores, options.document_ids, options.divisor);
  const auto [T, E] = Dims<2>(scores);
  const auto [groups, E_f] = Dims<2>(options.fractions);
  CHECK_EQ(E, E_f);
  CHECK_GE(options.tokens_per_group, 1);
  CHECK_GE(groups * options.tokens_per_group, T) << "a group for each token";
  CheckDType(options.fractions, scores.dtype());
}

}  // namespace

Tensor BalanceLoss(const Tensor& scores, const BalanceLossOptions& options, Context& ctx) {
  CheckBalance(scores, options);
  const Tensor value = ctx.Empty(DType::kF64, {1}, "balance_loss");
  const OpScope op = ctx.Start(Moves("balance_loss", scores));
  if (op.is_dry()) return value;
  BackendFor(scores.dtype(), ctx).balance_loss(scores, options, value, ctx);
  return value;
}

void BalanceLossGradient(const Tensor& scores, const BalanceLossOptions& options,
                         const RouterLossGradientArgs& gradient, Context& ctx) {
  CheckBalance(scores, options);
  CheckAlike(scores, gradient.dx);
  const OpScope op = ctx.Start(Moves("balance_loss.gradient", gradient.dx, gradient.dx));
  if (op.is_dry()) return;
  BackendFor(scores.dtype(), ctx).balance_loss_gradient(scores, options, gradient, ctx);
}

Tensor ZLoss(const Tensor& logits, const ZLossOptions& options, Context& ctx) {
  CheckTokens(logits, options.document_ids, options.divisor);
  const Tensor value = ctx.Empty(DType::kF64, {1}, "z_loss");
  const OpScope op = ctx.Start(Moves("z_loss", logits));
  if (op.is_dry()) return value;
  BackendFor(logits.dtype(), ctx).z_loss(logits, options, value, ctx);
  return value;
}

void ZLossGradient(const Tensor& logits, const ZLossOptions& options,
                   const RouterLossGradientArgs& gradient, Context& ctx) {
  CheckTokens(logits, options.document_ids, options.divisor);
  CheckAlike(logits, gradient.dx);
  const OpScope op = ctx.Start(Moves("z_loss.gradient", logits, gradient.dx));
  if (op.is_dry()) return;
  BackendFor(logits.dtype(), ctx).z_loss_gradient(logits, options, gradient, ctx);
}

}  // namespace moebius::kernels
