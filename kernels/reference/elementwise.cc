#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

constexpr int64_t kGrain = 4096;  // elements

double Read(const Tensor& x, int64_t i) {
  switch (x.dtype()) {
    case DType::kF64:
      return x.data<double>()[i];
    case DType::kF32:
      return x.data<float>()[i];
    default:
      return static_cast<double>(static_cast<float>(x.data<BF16>()[i]));
  }
}

void Write(const Tensor& x, int64_t i, double value) {
  switch (x.dtype()) {
    case DType::kF64:
      x.data<double>()[i] = value;
      return;
    case DType::kF32:
      x.data<float>()[i] = static_cast<float>(value);
      return;
    default:
      x.data<BF16>()[i] = BF16(static_cast<float>(value));
  }
}

}  // namespace

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx) {
  ctx.pool().ForRange(y.size(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      y.data<double>()[i] = a.data<double>()[i] + b.data<double>()[i];
  });
}

void Cast(const kernels::CastArgs& args, Context& ctx) {
  ctx.pool().ForRange(args.x.size(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      Write(args.y, i, Read(args.x, i) + (args.accumulate ? Read(args.y, i) : 0));
  });
}

void Scale(const Tensor& x, double factor, Context&) {
  for (double& element : x.span<double>()) element *= factor;
}

void SumOfSquares(const Tensor& x, const Tensor& sum, Context&) {
  double total = 0;
  for (const double element : x.span<double>()) total += element * element;
  sum.data<double>()[0] = total;
}

}  // namespace moebius::reference
