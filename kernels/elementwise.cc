#include "kernels/elementwise.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx) {
  CheckAlike(a, b);
  CheckAlike(a, y);
  const OpScope op = ctx.Start(Moves("add", a, b, y));
  if (op.is_dry()) return;
  BackendFor(y.dtype(), ctx).add(a, b, y, ctx);
}

void Cast(const CastArgs& args, Context& ctx) {
  CHECK_EQ(args.x.shape(), args.y.shape());
  CHECK(IsFloat(args.x.dtype()) && IsFloat(args.y.dtype()))
      << NameOf(args.x.dtype()) << " to " << NameOf(args.y.dtype());
  const OpScope op = ctx.Start(Moves("cast", args.x, args.y));
  if (op.is_dry()) return;
  const bool is_double = args.x.dtype() == DType::kF64 || args.y.dtype() == DType::kF64;
  BackendFor(is_double ? DType::kF64 : args.x.dtype(), ctx).cast(args, ctx);
}

void Scale(const Tensor& x, double factor, Context& ctx) {
  CheckDType(x, PreciseDType(x.dtype()));
  const OpScope op = ctx.Start(Moves("scale", x, x));
  if (op.is_dry()) return;
  BackendFor(x.dtype(), ctx).scale(x, factor, ctx);
}

void Sum(const SumArgs& args, Context& ctx) {
  CHECK_EQ(args.sum.shape(), (Shape{1}));
  for (const Tensor& x : {args.x, args.sum}) CheckDType(x, DType::kF64);
  const OpScope op = ctx.Start(Moves("sum", args.x));
  if (op.is_dry()) return;
  BackendFor(DType::kF32, ctx).sum(args, ctx);
}

void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx) {
  CHECK_EQ(sum.shape(), (Shape{1}));
  CheckDType(sum, DType::kF64);
  const OpScope op = ctx.Start(Moves("sum_of_squares", x));
  if (op.is_dry()) return;
  BackendFor(x.dtype(), ctx).sum_of_squares(x, sum, ctx);
}

}  // namespace moebius::kernels
