#include "kernels/rotary.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {

void Rotary(const RotaryArgs& args, Context& ctx) {
  const auto [T, W] = Dims<2>(args.x);
  CheckAlike(args.x, args.y);
  CHECK_EQ(args.positions.shape(), (Shape{T}));
  CheckDType(args.positions, DType::kI32);
  CHECK(args.head_dim >= 2 && args.head_dim % 2 == 0) << args.head_dim;
  CHECK_EQ(W % args.head_dim, 0) << "whole heads";
  const OpScope op = ctx.Start(Moves("rotary", args.x, args.y));
  if (op.is_dry()) return;
  BackendFor(args.x.dtype(), ctx).rotary(args, ctx);
}

}  // namespace moebius::kernels
