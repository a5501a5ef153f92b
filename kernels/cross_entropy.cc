#include "kernels/cross_entropy.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

namespace moebius::kernels {

void CrossEntropy(const CrossEntropyArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  CHECK_GE(V, 1);
  for (const Tensor& column : {args.labels, args.weights, args.nll})
    CHECK_EQ(column.shape(), (Shape{R}));
  CheckDType(args.logits, PreciseDType(args.logits.dtype()));
  CheckDType(args.labels, DType::kI32);
  CheckDType(args.weights, args.logits.dtype());
  CheckDType(args.nll, DType::kF64);
  if (args.dlogits.defined()) {
    CHECK_EQ(args.dlogits.shape(), args.logits.shape());
    CHECK(args.logits.dtype() == DType::kF32 || args.dlogits.dtype() == DType::kF64);
  }
  if (ctx.device().is_meta()) return;
  args.logits.dtype() == DType::kF64 ? reference::CrossEntropy(args, ctx)
                                     : cpu::CrossEntropy(args, ctx);
}

}  // namespace moebius::kernels
