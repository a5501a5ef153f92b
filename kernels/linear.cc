#include "kernels/linear.h"

#include "kernels/cpu/linear.h"
#include "kernels/reference/linear.h"
#include "kernels/weight_images.h"

namespace moebius::kernels {
namespace {

int64_t NumGroups(const Tensor& offsets) {
  if (!offsets.defined()) return 1;
  CHECK(offsets.dtype() == DType::kI32) << NameOf(offsets.dtype());
  return Dims<1>(offsets)[0] - 1;
}

void CheckOffsets(const Tensor& offsets, int64_t rows) {
  if (!offsets.defined()) return;
  const auto values = offsets.span<int32_t>();
  CHECK_EQ(values.front(), 0);
  CHECK_EQ(values.back(), rows) << "rows beyond the last group";
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

// y = x image^T for either direction of the weight.
void Multiply(const char* op, const Tensor& x, const Tensor& image, WeightFormat format,
              const Tensor& offsets, const Tensor& y, bool accumulate, Context& context) {
  const auto [R, K] = Dims<2>(x);
  const auto [R_y, N] = Dims<2>(y);
  const int64_t e = NumGroups(offsets);
  CHECK_EQ(R, R_y);
  CheckResult(x.dtype(), y.dtype());
  CHECK(image.dtype() == x.dtype()) << NameOf(image.dtype()) << " image";
  const bool transposed = format == WeightFormat::kPackedTransposed;
  const Shape w = transposed ? Shape{e, K, N} : Shape{e, N, K};
  CHECK_EQ(image.size(), WeightImageShape(w, format, x.dtype()).num_elements()) << w;
  const int64_t bytes = x.bytes() + image.bytes() + y.bytes();
  if (context.DryRuns(ProductWork(op, x.dtype(), R, K, N, e, bytes)) || R == 0 || N == 0) return;

  CheckOffsets(offsets, R);
  if (x.dtype() != DType::kF64) {
    cpu::Multiply({x, image, offsets, y, accumulate}, context, cpu::Simd());
  } else if (transposed) {
    reference::LinearInputGradient({x, image, offsets, y, accumulate}, context);
  } else {
    reference::Linear({x, image, offsets, y, accumulate}, context);
  }
}

}  // namespace

void Linear(const LinearArgs& args, Context& context) {
  Multiply("linear", args.x, args.w, WeightFormat::kPacked, args.offsets, args.y, args.accumulate,
           context);
}

void LinearInputGradient(const LinearInputGradientArgs& args, Context& context) {
  Multiply("linear.gradient", args.dy, args.w, WeightFormat::kPackedTransposed, args.offsets,
           args.dx, args.accumulate, context);
}

void LinearWeightGradient(const LinearWeightGradientArgs& args, Context& context) {
  const auto [R, N] = Dims<2>(args.dy);
  const auto [R_x, K] = Dims<2>(args.x);
  const int64_t e = NumGroups(args.offsets);
  CHECK_EQ(R, R_x);
  CHECK(args.dy.dtype() == args.x.dtype())
      << NameOf(args.dy.dtype()) << " and " << NameOf(args.x.dtype());
  CHECK(args.dw.dtype() == (args.x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32));
  if (args.offsets.defined()) {
    CHECK_EQ(args.dw.shape(), (Shape{e, N, K}));
  } else {
    CHECK_EQ(args.dw.shape(), (Shape{N, K}));
  }
  const int64_t bytes = args.dy.bytes() + args.x.bytes() + args.dw.bytes();
  const Work work = ProductWork("linear.weight_gradient", args.x.dtype(), R, N, K, e, bytes);
  if (context.DryRuns(work) || args.dw.size() == 0) return;

  CheckOffsets(args.offsets, R);
  if (args.x.dtype() == DType::kF64) {
    reference::LinearWeightGradient(args, context);
  } else {
    cpu::LinearWeightGradient(args, context, cpu::Simd());
  }
}

}  // namespace moebius::kernels
