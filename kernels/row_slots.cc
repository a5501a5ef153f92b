#include "kernels/row_slots.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

// Rows of `some` [k, D] and of `others` of the same width and dtype, and where they stand there.
void CheckRows(const Tensor& some, const Tensor& at, const Tensor& others) {
  CHECK_EQ(Dims<2>(some)[1], Dims<2>(others)[1]);
  CHECK(IsFloat(some.dtype())) << NameOf(some.dtype());
  CheckDType(others, some.dtype());
  CheckDType(at, DType::kI32);
  CHECK_EQ(at.size(), some.shape()[0]) << "one place a row";
}

}  // namespace

void RowSlots(const RowSlotsArgs& args, Context& ctx) {
  const int64_t n = Dims<2>(args.expert_offsets)[0];
  CHECK(args.copies >= 1 && n % args.copies == 0) << "every expert has as many copies";
  CHECK_EQ(args.first_experts.shape(), (Shape{n / args.copies + 1}));
  CHECK(0 <= args.rank && args.rank < n) << "rank " << args.rank;
  CHECK_EQ(Dims<2>(args.received)[0], n);
  CHECK_EQ(args.overflow.shape(), (Shape{1}));
  CheckDType(args.overflow, DType::kF64);
  for (const Tensor* x : {&args.expert_offsets, &args.first_experts, &args.sent, &args.received,
                          &args.local_offsets}) {
    CheckDType(*x, DType::kI32);
  }
  const OpScope op = ctx.Start(Moves("row_slots", args.expert_offsets, args.sent, args.received));
  if (op.is_dry()) return;
  BackendFor(DType::kI32, ctx).row_slots(args, ctx);
}

void ScatterRows(const ScatterRowsArgs& args, Context& ctx) {
  CheckRows(args.x, args.at, args.y);
  const OpScope op = ctx.Start(Moves("scatter_rows", args.x, args.y));
  if (op.is_dry() || args.x.size() == 0) return;
  BackendFor(args.x.dtype(), ctx).scatter_rows(args, ctx);
}

void GatherRows(const GatherRowsArgs& args, Context& ctx) {
  CheckRows(args.y, args.at, args.x);
  const OpScope op = ctx.Start(Moves("gather_rows", args.x, args.y));
  if (op.is_dry() || args.y.size() == 0) return;
  BackendFor(args.y.dtype(), ctx).gather_rows(args, ctx);
}

}  // namespace moebius::kernels
