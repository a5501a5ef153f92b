#include "kernels/activations.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

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
  h.dtype() == DType::kF64 ? reference::SwiGlu(gate, up, h, ctx) : cpu::SwiGlu(gate, up, h, ctx);
}

void SwiGluGradient(const SwiGluGradientArgs& args, Context& ctx) {
  CheckAlike(args.gate, args.up);
  CheckAlike(args.gate, args.dh);
  CheckAlike(args.gate, args.dgate);
  CheckAlike(args.gate, args.dup);
  const OpScope op =
      ctx.Start(Moves("swiglu.gradient", args.gate, args.up, args.dh, args.dgate, args.dup));
  if (op.is_dry()) return;
  args.dh.dtype() == DType::kF64 ? reference::SwiGluGradient(args, ctx)
                                 : cpu::SwiGluGradient(args, ctx);
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [T, E] = Dims<2>(z);
  CHECK_GE(E, 1);
  CheckAlike(z, p);
  const OpScope op = ctx.Start(Moves("softmax", z, p));
  if (op.is_dry() || T == 0) return;
  z.dtype() == DType::kF64 ? reference::Softmax(z, p, ctx) : cpu::Softmax(z, p, ctx);
}

void SoftmaxGradient(const ScoreGradientArgs& args, Context& ctx) {
  const auto [T, E] = Dims<2>(args.y);
  CHECK_GE(E, 1);
  CheckScoreGradient(args);
  const OpScope op = ctx.Start(Moves("softmax.gradient", args.y, args.dy, args.dz));
  if (op.is_dry() || T == 0) return;
  args.y.dtype() == DType::kF64 ? reference::SoftmaxGradient(args, ctx)
                                : cpu::SoftmaxGradient(args, ctx);
}

void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx) {
  CheckAlike(z, s);
  const OpScope op = ctx.Start(Moves("sigmoid", z, s));
  if (op.is_dry()) return;
  z.dtype() == DType::kF64 ? reference::Sigmoid(z, s, ctx) : cpu::Sigmoid(z, s, ctx);
}

void SigmoidGradient(const ScoreGradientArgs& args, Context& ctx) {
  CheckScoreGradient(args);
  const OpScope op = ctx.Start(Moves("sigmoid.gradient", args.y, args.dy, args.dz));
  if (op.is_dry()) return;
  args.y.dtype() == DType::kF64 ? reference::SigmoidGradient(args, ctx)
                                : cpu::SigmoidGradient(args, ctx);
}

}  // namespace moebius::kernels
