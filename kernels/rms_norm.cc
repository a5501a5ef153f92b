#include "kernels/rms_norm.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

namespace moebius::kernels {
namespace {

void CheckSegments(const Tensor& x, const Tensor& w) {
  const auto [C] = Dims<1>(w);
  CHECK_GE(C, 1);
  CHECK_EQ(x.shape()[x.shape().rank() - 1] % C, 0) << "rows hold whole segments";
  CheckDType(w, PreciseDType(x.dtype()));
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx) {
  CheckSegments(x, w);
  CheckAlike(x, y);
  if (ctx.DryRuns(Moves("rms_norm", x, y))) return;
  x.dtype() == DType::kF64 ? reference::RmsNorm(x, w, epsilon, y, ctx)
                           : cpu::RmsNorm(x, w, epsilon, y, ctx);
}

void RmsNormInputGradient(const RmsNormInputGradientArgs& args, Context& ctx) {
  CheckSegments(args.x, args.w);
  CheckAlike(args.x, args.dy);
  CheckAlike(args.x, args.dx);
  if (ctx.DryRuns(Moves("rms_norm.gradient", args.x, args.dy, args.dx))) return;
  args.x.dtype() == DType::kF64 ? reference::RmsNormInputGradient(args, ctx)
                                : cpu::RmsNormInputGradient(args, ctx);
}

void RmsNormWeightGradient(const RmsNormWeightGradientArgs& args, Context& ctx) {
  CheckSegments(args.x, args.dw);
  CheckAlike(args.x, args.dy);
  if (ctx.DryRuns(Moves("rms_norm.weight_gradient", args.x, args.dy))) return;
  args.x.dtype() == DType::kF64 ? reference::RmsNormWeightGradient(args, ctx)
                                : cpu::RmsNormWeightGradient(args, ctx);
}

}  // namespace moebius::kernels
