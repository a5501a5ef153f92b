#include "kernels/columns.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void Check(const Tensor& x, int64_t begin, const Tensor& y) {
  const auto [T, N] = Dims<2>(x);
  const auto [rows, n] = Dims<2>(y);
  CHECK_EQ(rows, T);
  CHECK(begin >= 0 && begin + n <= N) << n << " columns from " << begin << " on, of " << N;
  CheckDType(y, x.dtype());
  CHECK(IsFloat(x.dtype())) << NameOf(x.dtype());
}

}  // namespace

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx) {
  Check(x, begin, y);
  const OpScope op = ctx.Start(Moves("columns", y, y));
  if (op.is_dry()) return;
  BackendFor(x.dtype(), ctx).columns(x, begin, y, ctx);
}

void ColumnsGradient(const ColumnsGradientArgs& args, Context& ctx) {
  Check(args.dx, args.begin, args.dy);
  const OpScope op = ctx.Start(Moves("columns.gradient", args.dy, args.dy));
  if (op.is_dry()) return;
  BackendFor(args.dx.dtype(), ctx).columns_gradient(args, ctx);
}

}  // namespace moebius::kernels
