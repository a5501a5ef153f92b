#include "kernels/linear.h"

#include <algorithm>

#include "kernels/backend.h"
#include "kernels/checks.h"
#include "kernels/weight_images.h"

namespace moebius::kernels {
namespace {

int64_t NumGroups(const Tensor& offsets) {
  if (!offsets.defined()) return 1;
  CHECK(offsets.dtype() == DType::kI32) << NameOf(offsets.dtype());
  return Dims<1>(offsets)[0] - 1;
}

// What lies on an accelerator is not read for a check.
bool HostReads(const Tensor& x) { return x.defined() && !x.device().is_cuda(); }

void CheckOffsets(const Tensor& offsets, int64_t rows) {
  if (!HostReads(offsets)) return;
  const auto values = offsets.span<int32_t>();
  CHECK_EQ(values.front(), 0);
  CHECK_LE(values.back(), rows) << "the last group goes beyond the rows";
  for (size_t j = 1; j < values.size(); ++j) CHECK_LE(values[j - 1], values[j]) << "group " << j;
}

void CheckResult(DType operand, DType result) {
  CHECK(IsFloat(operand)) << NameOf(operand);
  CHECK(result == operand || (operand == DType::kBF16 && result == DType::kF32))
      << NameOf(operand) << " to " << NameOf(result);
}

// 2 `rows` `inner` `columns` operations, on operands and a result of these bytes.
Work ProductWork(const char* op, DType dtype, int64_t rows, int64_t inner, int64_t columns,
                 int64_t groups, int64_t bytes) {
  return {.op = op,
          .kind = Work::Kind::kProduct,
          .dtype = dtype,
          .flops = 2.0 * static_cast<double>(rows) * static_cast<double>(inner) *
                   static_cast<double>(columns),
          .bytes = bytes,
          .rows = rows,
          .inner = inner,
          .columns = columns,
          .groups = groups};
}

// Rows of the product that reads x by `rows`.
int64_t NumRows(const Tensor& x, const Tensor& rows) {
  if (!rows.defined()) return Dims<2>(x)[0];
  CHECK(rows.dtype() == DType::kI32) << NameOf(rows.dtype());
  return Dims<1>(rows)[0];
}

// Each within the T rows of another tensor.
void CheckRows(const Tensor& rows, int64_t T) {
  if (!HostReads(rows)) return;
  for (const int32_t row : rows.span<int32_t>()) CHECK(0 <= row && row < T) << row << " of " << T;
}

// Within each group.
void CheckAscending(const Tensor& rows, const Tensor& offsets) {
  if (!HostReads(rows)) return;
  const auto at = offsets.span<int32_t>(), row = rows.span<int32_t>();
  for (size_t j = 1; j < at.size(); ++j) {
    CHECK(std::is_sorted(row.begin() + at[j - 1], row.begin() + at[j])) << "group " << j - 1;
  }
}

void CheckImage(const Tensor& image, WeightFormat format, int64_t e, int64_t outputs,
                int64_t inputs, DType dtype, const Context& context) {
  CHECK(image.dtype() == dtype) << NameOf(image.dtype()) << " image";
  const bool transposed = format == WeightFormat::kPackedTransposed;
  const Shape w = transposed ? Shape{e, inputs, outputs} : Shape{e, outputs, inputs};
  CHECK_EQ(image.size(), WeightImageShape(w, format, dtype, context).num_elements()) << w;
}

// Of y = x image^T, for either direction of the weight.
Work CheckProduct(const char* op, const LinearArgs& args, WeightFormat format,
                  const Context& context) {
  const int64_t R = NumRows(args.x, args.rows), K = Dims<2>(args.x)[1];
  const auto [R_y, N] = Dims<2>(args.y);
  const int64_t e = NumGroups(args.offsets);
  const DType dtype = args.x.dtype();
  CHECK_EQ(R, R_y);
  CheckResult(dtype, args.y.dtype());
  CheckImage(args.w, format, e, N, K, dtype, context);
  CHECK_EQ(args.gate.defined(), args.h.defined());
  int64_t bytes = R * K * SizeOf(dtype) + args.w.bytes() + args.y.bytes();
  if (args.h.defined()) {
    CHECK(args.y.dtype() == dtype) << NameOf(args.y.dtype());
    for (const Tensor* x : {&args.gate, &args.h}) {
      CheckAlike(args.y, *x);
      bytes += x->bytes();
    }
  }
  return ProductWork(op, dtype, R, K, N, e, bytes);
}

void CheckNumbers(const LinearArgs& args) {
  CheckOffsets(args.offsets, args.y.shape()[0]);
  CheckRows(args.rows, args.x.shape()[0]);
}

}  // namespace

void Linear(const LinearArgs& args, Context& context) {
  const OpScope op = context.Start(CheckProduct("linear", args, WeightFormat::kPacked, context));
  if (op.is_dry() || args.y.size() == 0) return;
  CheckNumbers(args);
  BackendFor(args.x.dtype(), context).linear(args, context);
}

void LinearInputGradient(const LinearInputGradientArgs& args, Context& context) {
  const LinearArgs product = {.x = args.dy,
                              .w = args.w,
                              .offsets = args.offsets,
                              .y = args.dx,
                              .accumulate = args.accumulate,
                              .rows = args.rows};
  const OpScope op = context.Start(
      CheckProduct("linear.gradient", product, WeightFormat::kPackedTransposed, context));
  if (op.is_dry() || args.dx.size() == 0) return;
  CheckNumbers(product);
  BackendFor(args.dy.dtype(), context).linear_input_gradient(args, context);
}

void LinearSwiGluGradient(const LinearSwiGluGradientArgs& args, Context& context) {
  const LinearArgs product = {
      .x = args.dy, .w = args.w, .offsets = args.offsets, .y = args.dgate, .rows = args.rows};
  Work work =
      CheckProduct("linear.swiglu.gradient", product, WeightFormat::kPackedTransposed, context);
  CHECK(args.gate.dtype() == args.dy.dtype());
  for (const Tensor* x : {&args.gate, &args.up, &args.dup, &args.h}) {
    CheckAlike(args.dgate, *x);
    work.bytes += x->bytes();
  }
  CHECK_EQ(args.weights.defined(), args.dweights.defined());
  if (args.weights.defined()) {
    CHECK_EQ(args.weights.shape(), (Shape{args.gate.shape()[0]}));
    CheckDType(args.weights, PreciseDType(args.dy.dtype()));
    CheckAlike(args.weights, args.dweights);
  }
  const OpScope op = context.Start(work);
  if (op.is_dry() || args.gate.size() == 0) return;
  CheckNumbers(product);
  BackendFor(args.dy.dtype(), context).linear_swiglu_gradient(args, context);
}

void LinearWeightGradient(const LinearWeightGradientArgs& args, Context& context) {
  const int64_t R = NumRows(args.dy, args.dy_rows), N = Dims<2>(args.dy)[1];
  const int64_t K = Dims<2>(args.x)[1], e = NumGroups(args.offsets);
  CHECK_EQ(R, NumRows(args.x, args.x_rows));
  CHECK(args.dy.dtype() == args.x.dtype())
      << NameOf(args.dy.dtype()) << " and " << NameOf(args.x.dtype());
  CHECK(args.dw.dtype() == (args.x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32));
  if (args.offsets.defined()) {
    CHECK_EQ(args.dw.shape(), (Shape{e, N, K}));
  } else {
    CHECK_EQ(args.dw.shape(), (Shape{N, K}));
  }
  const int64_t bytes = R * (N + K) * SizeOf(args.x.dtype()) + args.dw.bytes();
  const Work work = ProductWork("linear.weight_gradient", args.x.dtype(), R, N, K, e, bytes);
  const OpScope op = context.Start(work);
  if (op.is_dry() || args.dw.size() == 0) return;

  CheckOffsets(args.offsets, R);
  CheckRows(args.dy_rows, args.dy.shape()[0]);
  CheckRows(args.x_rows, args.x.shape()[0]);
  BackendFor(args.x.dtype(), context).linear_weight_gradient(args, context);
}

void LinearSum(const LinearSumArgs& args, Context& context) {
  const auto [R, K] = Dims<2>(args.x);
  const auto [T, N] = Dims<2>(args.y);
  const int64_t e = NumGroups(args.offsets);
  const DType dtype = args.x.dtype();
  CHECK(args.offsets.defined() && args.rows.defined());
  CHECK_EQ(R, NumRows(args.x, args.rows));
  CheckResult(dtype, args.y.dtype());
  CheckImage(args.w, args.format, e, N, K, dtype, context);
  if (args.weights.defined()) {
    CHECK_EQ(args.weights.shape(), (Shape{R}));
    CheckDType(args.weights, PreciseDType(dtype));
  }
  const int64_t bytes = args.x.bytes() + args.w.bytes() + R * N * SizeOf(args.y.dtype());
  const OpScope op = context.Start(ProductWork("linear.sum", dtype, R, K, N, e, bytes));
  if (op.is_dry() || args.y.size() == 0) return;

  CheckOffsets(args.offsets, R);
  if (HostReads(args.offsets)) CHECK_EQ(args.offsets.span<int32_t>().back(), R);
  CheckRows(args.rows, T);
  CheckAscending(args.rows, args.offsets);
  BackendFor(dtype, context).linear_sum(args, context);
}

}  // namespace moebius::kernels
