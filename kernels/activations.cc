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
  if (ctx.DryRuns(Moves("swiglu", gate, up, h))) return;
  h.dtype() == DType::kF64 ? reference::SwiGlu(gate, up, h, ctx) : cpu::SwiGlu(gate, up, h, ctx);
}

void SwiGluGradient(const SwiGluGradientArgs& args, Context& ctx) {
  CheckAlike(args.gate, args.up);
  CheckAlike(args.gate, args.dh);
  CheckAlike(args.gate, args.dgate);
  CheckAlike(args.gate, args.dup);
  if (ctx.DryRuns(Moves("swiglu.gradient", args.gate, args.up, args.dh, args.dgate, args.dup))) {
    return;
  }
  args.dh.dtype() == DType::kF64 ? reference::SwiGluGradient(args, ctx)
                                 : cpu::SwiGluGradient(args, ctx);
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [T, E] = Dims<2>(z);
  CHECK_GE(E, 1);
  CheckAlike(z, p);
  if (ctx.DryRuns(Moves("softmax", z, p)) || T == 0) return;
  z.dtype() == DType::kF64 ? reference::Softmax(z, p, ctx) : cpu::Softmax(z, p, ctx);
}

void SoftmaxGradient(const ScoreGradientArgs& args, Context& ctx) {
  const auto [T, E] = Dims<2>(args.y);
  CHECK_GE(E, 1);
  CheckScoreGradient(args);
  if (ctx.DryRuns(Moves("softmax.gradient", args.y, args.dy, args.dz)) || T == 0) return;
  args.y.dtype() == DType::kF64 ? reference::SoftmaxGradient(args, ctx)
                                : cpu::SoftmaxGradient(args, ctx);
}

void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx) {
  CheckAlike(z, s);
  if (ctx.DryRuns(Moves("sigmoid", z, s))) return;
  z.dtype() == DType::kF64 ? reference::Sigmoid(z, s, ctx) : cpu::Sigmoid(z, s, ctx);
}

void SigmoidGradient(const ScoreGradientArgs& args, Context& ctx) {
  CheckScoreGradient(args);
  if (ctx.DryRuns(Moves("sigmoid.gradient", args.y, args.dy, args.dz))) return;
  args.y.dtype() == DType::kF64 ? reference::SigmoidGradient(args, ctx)
                                : cpu::SigmoidGradient(args, ctx);
}

}  // namespace moebius::kernels
