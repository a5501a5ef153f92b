#include "kernels/activations.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckScoreGradient(const ScoreGradientArgs& args) {
  CheckAlike(args.y, args.dy);
  CheckAlike(args.y, args.dz);
}

}  // namespace

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx) {
  CheckAlike(gate, up);
  CheckAlike(gate, h);
  const OpScope op = ctx.Start(Moves("swiglu", gate, up, h));
  if (op.is_dry()) return;
  BackendFor(h.dtype(), ctx).swiglu(gate, up, h, ctx);
}

void SwiGluGradient(const SwiGluGradientArgs& args, Context& ctx) {
  CheckAlike(args.gate, args.up);
  CheckAlike(args.gate, args.dh);
  CheckAlike(args.gate, args.dgate);
  CheckAlike(args.gate, args.dup);
  const OpScope op =
      ctx.Start(Moves("swiglu.gradient", args.gate, args.up, args.dh, args.dgate, args.dup));
  if (op.is_dry()) return;
  BackendFor(args.dh.dtype(), ctx).swiglu_gradient(args, ctx);
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [T, E] = Dims<2>(z);
  CHECK_GE(E, 1);
  CheckAlike(z, p);
  const OpScope op = ctx.Start(Moves("softmax", z, p));
  if (op.is_dry() || T == 0) return;
  BackendFor(z.dtype(), ctx).softmax(z, p, ctx);
}

void SoftmaxGradient(const ScoreGradientArgs& args, Context& ctx) {
  const auto [T, E] = Dims<2>(args.y);
  CHECK_GE(E, 1);
  CheckScoreGradient(args);
  const OpScope op = ctx.Start(Moves("softmax.gradient", args.y, args.dy, args.dz));
  if (op.is_dry() || T == 0) return;
  BackendFor(args.y.dtype(), ctx).softmax_gradient(args, ctx);
}

void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx) {
  CheckAlike(z, s);
  const OpScope op = ctx.Start(Moves("sigmoid", z, s));
  if (op.is_dry()) return;
  BackendFor(z.dtype(), ctx).sigmoid(z, s, ctx);
}

void SigmoidGradient(const ScoreGradientArgs& args, Context& ctx) {
  CheckScoreGradient(args);
  const OpScope op = ctx.Start(Moves("sigmoid.gradient", args.y, args.dy, args.dz));
  if (op.is_dry()) return;
  BackendFor(args.y.dtype(), ctx).sigmoid_gradient(args, ctx);
}

}  // namespace moebius::kernels
