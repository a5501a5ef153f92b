#include "kernels/cross_entropy.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckRows(const Tensor& logits, const Tensor& labels, const Tensor& weights) {
  const auto [R, V] = Dims<2>(logits);
  CHECK_GE(V, 1);
  for (const Tensor& column : {labels, weights}) CHECK_EQ(column.shape(), (Shape{R}));
  CheckDType(logits, PreciseDType(logits.dtype()));
  CheckDType(labels, DType::kI32);
  CheckDType(weights, logits.dtype());
}

void CheckResults(const Tensor& logits, const Tensor& nll, const Tensor& dlogits) {
  CHECK_EQ(nll.shape(), (Shape{logits.shape()[0]}));
  CheckDType(nll, DType::kF64);
  if (!dlogits.defined()) return;
  CHECK_EQ(dlogits.shape(), logits.shape());
  CHECK(logits.dtype() == DType::kF32 || dlogits.dtype() == DType::kF64);
}

void CheckStatistics(const Tensor& statistics, int64_t R) {
  CHECK_EQ(statistics.shape(), (Shape{R, 3}));
  CheckDType(statistics, DType::kF64);
}

}  // namespace

void CrossEntropy(const CrossEntropyArgs& args, Context& ctx) {
  CheckRows(args.logits, args.labels, args.weights);
  CheckResults(args.logits, args.nll, args.dlogits);
  const OpScope op = ctx.Start(Moves("cross_entropy", args.logits, args.dlogits));
  if (op.is_dry()) return;
  BackendFor(args.logits.dtype(), ctx).cross_entropy(args, ctx);
}

void CrossEntropyStatistics(const CrossEntropyStatisticsArgs& args, Context& ctx) {
  CheckRows(args.logits, args.labels, args.weights);
  CheckStatistics(args.statistics, args.logits.shape()[0]);
  const OpScope op = ctx.Start(Moves("cross_entropy.statistics", args.logits));
  if (op.is_dry()) return;
  BackendFor(args.logits.dtype(), ctx).cross_entropy_statistics(args, ctx);
}

void CombineStatistics(const Tensor& parts, const Tensor& whole, Context& ctx) {
  const auto [n, R, three] = Dims<3>(parts);
  CHECK_EQ(three, 3);
  CheckDType(parts, DType::kF64);
  CheckStatistics(whole, R);
  const OpScope op = ctx.Start(Moves("cross_entropy.combine", parts, whole));
  if (op.is_dry()) return;
  BackendFor(DType::kF32, ctx).combine_statistics(parts, whole, ctx);
}

void CrossEntropyOfPart(const CrossEntropyOfPartArgs& args, Context& ctx) {
  CheckRows(args.logits, args.labels, args.weights);
  CheckResults(args.logits, args.nll, args.dlogits);
  CheckStatistics(args.statistics, args.logits.shape()[0]);
  const OpScope op = ctx.Start(Moves("cross_entropy.of_part", args.logits, args.dlogits));
  if (op.is_dry()) return;
  BackendFor(args.logits.dtype(), ctx).cross_entropy_of_part(args, ctx);
}

}  // namespace moebius::kernels
