#include "kernels/adamw.h"

#include "kernels/backend.h"
#include "kernels/checks.h"
#include "kernels/weight_images.h"

namespace moebius::kernels {

void AdamW(const AdamWArgs& args, Context& ctx) {
  CheckDType(args.value, PreciseDType(args.value.dtype()));
  for (const Tensor& x : {args.gradient, args.m, args.v}) CheckAlike(args.value, x);
  CHECK_GE(args.step, 1);
  Work work = Moves("adamw", args.value, args.value, args.gradient, args.m, args.m, args.v, args.v);
  for (const AdamWArgs::Image& image : args.images) {
    CheckDType(args.value, DType::kF32);
    CHECK(image.format != WeightFormat::kPlain);
    CHECK_EQ(image.tensor.shape(),
             WeightImageShape(args.value.shape(), image.format, image.tensor.dtype(), ctx));
    work.bytes += image.tensor.bytes();
  }
  const OpScope op = ctx.Start(work);
  if (op.is_dry() || args.value.size() == 0) return;
  BackendFor(args.value.dtype(), ctx).adamw(args, ctx);
}

}  // namespace moebius::kernels
