#include "kernels/adamw.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

namespace moebius::kernels {

void AdamW(const AdamWArgs& args, Context& ctx) {
  CheckDType(args.value, PreciseDType(args.value.dtype()));
  for (const Tensor& x : {args.gradient, args.m, args.v}) CheckAlike(args.value, x);
  CHECK_GE(args.step, 1);
  const OpScope op = ctx.Start(
      Moves("adamw", args.value, args.value, args.gradient, args.m, args.m, args.v, args.v));
  if (op.is_dry()) return;
  args.value.dtype() == DType::kF64 ? reference::AdamW(args, ctx) : cpu::AdamW(args, ctx);
}

}  // namespace moebius::kernels
