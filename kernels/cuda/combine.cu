// Limited by bandwidth: every part is read once, the result written once.
#include <type_traits>

#include "kernels/cuda/combine.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

template <class T, class Out, bool kMaximum>
__global__ void CombineKernel(const std::byte* parts, int num_parts, int64_t stride, Out* out,
                              int64_t n) {
  using Total = std::conditional_t<std::is_same_v<T, BF16>, float, T>;
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    Total total = static_cast<Total>(reinterpret_cast<const T*>(parts)[i]);
    for (int r = 1; r < num_parts; ++r) {
      const auto x = static_cast<Total>(reinterpret_cast<const T*>(parts + r * stride)[i]);
      total = kMaximum ? (total < x ? x : total) : total + x;
    }
    out[i] = static_cast<Out>(total);
  }
}

template <class T, class Out>
void Combine(const CombineArgs& args, void* stream) {
  const auto kernel = args.maximum ? CombineKernel<T, Out, true> : CombineKernel<T, Out, false>;
  LaunchOn(stream, kernel, ForElements(args.count), args.parts, args.num_parts, args.stride,
           reinterpret_cast<Out*>(args.out), args.count);
}

}  // namespace

void CombineParts(const CombineArgs& args, void* stream) {
  if (args.dtype == DType::kBF16 && args.out_dtype == DType::kF32) {
    return Combine<BF16, float>(args, stream);
  }
  CHECK(args.dtype == args.out_dtype) << NameOf(args.dtype) << " in " << NameOf(args.out_dtype);
  switch (args.dtype) {
    case DType::kF64:
      return Combine<double, double>(args, stream);
    case DType::kF32:
      return Combine<float, float>(args, stream);
    case DType::kBF16:
      return Combine<BF16, BF16>(args, stream);
    case DType::kI32:
      return Combine<int32_t, int32_t>(args, stream);
    case DType::kI64:
      return Combine<int64_t, int64_t>(args, stream);
    default:
      CHECK(false) << "no sums of " << NameOf(args.dtype);
  }
}

}  // namespace moebius::cuda
