#include "kernels/rms_norm.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckSegments(const Tensor& x, const Tensor& w) {
  const auto [C] = Dims<1>(w);
  CHECK_GE(C, 1);
  CHECK_EQ(x.shape()[x.shape().rank() - 1] % C, 0) << "rows hold whole segments";
  CheckDType(w, PreciseDType(x.dtype()));
}

void CheckSums(const Tensor& sums, const Tensor& x) {
  CHECK_EQ(sums.shape(), (Shape{x.shape()[0]}));
  CheckDType(sums, DType::kF64);
}

void CheckWhole(const WholeRows& whole, const Tensor& x, const Tensor& w) {
  if (whole.width == 0) return;
  const auto [R, C] = Dims<2>(x);
  CHECK_EQ(C, w.size()) << "a part of a row is one segment";
  CHECK_GE(whole.width, C);
  CheckSums(whole.squares, x);
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const WholeRows& whole) {
  CheckSegments(x, w);
  CheckAlike(x, y);
  CheckWhole(whole, x, w);
  const OpScope op = ctx.Start(Moves("rms_norm", x, y));
  if (op.is_dry()) return;
  BackendFor(x.dtype(), ctx).rms_norm(x, w, epsilon, y, ctx, whole);
}

void RowProducts(const RowProductsArgs& args, Context& ctx) {
  const auto [R, C] = Dims<2>(args.a);
  CheckAlike(args.a, args.b);
  CheckSums(args.sums, args.a);
  if (args.w.defined()) {
    CHECK_EQ(args.w.shape(), (Shape{C}));
    CheckDType(args.w, PreciseDType(args.a.dtype()));
  }
  const OpScope op = ctx.Start(Moves("rms_norm.sums", args.a, args.b));
  if (op.is_dry()) return;
  BackendFor(args.a.dtype(), ctx).row_products(args, ctx);
}

void RmsNormInputGradient(const RmsNormInputGradientArgs& args, Context& ctx) {
  CheckSegments(args.x, args.w);
  CheckAlike(args.x, args.dy);
  CheckAlike(args.x, args.dx);
  CheckWhole(args.whole, args.x, args.w);
  if (args.whole.width > 0) CheckSums(args.whole.products, args.x);
  const OpScope op = ctx.Start(Moves("rms_norm.gradient", args.x, args.dy, args.dx));
  if (op.is_dry()) return;
  BackendFor(args.x.dtype(), ctx).rms_norm_input_gradient(args, ctx);
}

void RmsNormWeightGradient(const RmsNormWeightGradientArgs& args, Context& ctx) {
  CheckSegments(args.x, args.dw);
  CheckAlike(args.x, args.dy);
  CheckWhole(args.whole, args.x, args.dw);
  const OpScope op = ctx.Start(Moves("rms_norm.weight_gradient", args.x, args.dy));
  if (op.is_dry()) return;
  BackendFor(args.x.dtype(), ctx).rms_norm_weight_gradient(args, ctx);
}

}  // namespace moebius::kernels
