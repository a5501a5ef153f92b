#include "kernels/elementwise.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

namespace moebius::kernels {

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx) {
  CheckAlike(a, b);
  CheckAlike(a, y);
  const OpScope op = ctx.Start(Moves("add", a, b, y));
  if (op.is_dry()) return;
  y.dtype() == DType::kF64 ? reference::Add(a, b, y, ctx) : cpu::Add(a, b, y, ctx);
}

void Cast(const CastArgs& args, Context& ctx) {
  CHECK_EQ(args.x.shape(), args.y.shape());
  CHECK(IsFloat(args.x.dtype()) && IsFloat(args.y.dtype()))
      << NameOf(args.x.dtype()) << " to " << NameOf(args.y.dtype());
  const OpScope op = ctx.Start(Moves("cast", args.x, args.y));
  if (op.is_dry()) return;
  const bool is_double = args.x.dtype() == DType::kF64 || args.y.dtype() == DType::kF64;
  is_double ? reference::Cast(args, ctx) : cpu::Cast(args, ctx);
}

void Scale(const Tensor& x, double factor, Context& ctx) {
  CheckDType(x, PreciseDType(x.dtype()));
  const OpScope op = ctx.Start(Moves("scale", x, x));
  if (op.is_dry()) return;
  x.dtype() == DType::kF64 ? reference::Scale(x, factor, ctx) : cpu::Scale(x, factor, ctx);
}

void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx) {
  CHECK_EQ(sum.shape(), (Shape{1}));
  CheckDType(sum, DType::kF64);
  const OpScope op = ctx.Start(Moves("sum_of_squares", x));
  if (op.is_dry()) return;
  x.dtype() == DType::kF64 ? reference::SumOfSquares(x, sum, ctx) : cpu::SumOfSquares(x, sum, ctx);
}

}  // namespace moebius::kernels
