#include "kernels/adamw.h"

#include "kernels/backend.h"
#include "kernels/checks.h"
#include "kernels/weight_images.h"

namespace moebius::kernels {
namespace {

void CheckState(const Tensor& state) {
  CHECK(state.defined()) << "no step has begun";
  CHECK_EQ(state.shape(), (Shape{StepState::kSize}));
  CheckDType(state, DType::kF64);
}

}  // namespace

void AdamW(const AdamWArgs& args, Context& ctx) {
  CheckDType(args.value, PreciseDType(args.value.dtype()));
  for (const Tensor& x : {args.gradient, args.m, args.v}) CheckAlike(args.value, x);
  CheckState(args.state);
  Work work = Moves("adamw", args.value, args.value, args.gradient, args.m, args.m, args.v, args.v);
  for (const AdamWArgs::Image& image : args.images) {
    CheckDType(args.value, DType::kF32);
    if (image.format == WeightFormat::kPlain) {
      CheckDType(image.tensor, DType::kBF16);  // in F32 it is the value
    } else {
      CHECK(ctx.packs_weights()) << "its products read weights as they are";
    }
    CHECK_EQ(image.tensor.shape(),
             WeightImageShape(args.value.shape(), image.format, image.tensor.dtype(), ctx));
    work.bytes += image.tensor.bytes();
  }
  const OpScope op = ctx.Start(work);
  if (op.is_dry() || args.value.size() == 0) return;
  BackendFor(args.value.dtype(), ctx).adamw(args, ctx);
}

void DecideUpdate(const DecideUpdateArgs& args, Context& ctx) {
  CheckState(args.state);
  CHECK(args.loss.defined() && args.squares.defined());
  for (const Tensor& x : {args.loss, args.squares, args.overflow}) {
    if (!x.defined()) continue;
    CHECK_EQ(x.shape(), (Shape{1}));
    CheckDType(x, DType::kF64);
  }
  const OpScope op = ctx.Start(Moves("decide_update", args.loss, args.squares, args.state));
  if (op.is_dry()) return;
  BackendFor(DType::kF32, ctx).decide_update(args, ctx);
}

}  // namespace moebius::kernels
