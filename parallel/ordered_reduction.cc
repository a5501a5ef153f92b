#include "parallel/ordered_reduction.h"

#include <algorithm>
#include <type_traits>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr int64_t kBlock = 1024;  // the sums of a block stay in the first-level cache

template <class T, class Out>
void Reduce(Reduction reduction, std::span<const std::byte* const> parts, int64_t count, Out* out) {
  using Accumulator = std::conditional_t<std::is_same_v<T, BF16>, float, T>;
  Accumulator sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const auto block = [&](size_t r) { return reinterpret_cast<const T*>(parts[r]) + begin; };
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<Accumulator>(block(0)[i]);
    for (size_t r = 1; r < parts.size(); ++r) {
      const T* x = block(r);
      if (reduction == Reduction::kSum) {
        for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<Accumulator>(x[i]);
      } else {
        for (int64_t i = 0; i < n; ++i) sum[i] = std::max(sum[i], static_cast<Accumulator>(x[i]));
      }
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<Out>(sum[i]);
  }
}

}  // namespace

void ReduceInRankOrder(Reduction reduction, DType dtype, std::span<const std::byte* const> parts,
                       int64_t count, DType out_dtype, std::byte* out) {
  CHECK(!parts.empty());
  if (dtype == DType::kBF16 && out_dtype == DType::kF32) {
    return Reduce<BF16>(reduction, parts, count, reinterpret_cast<float*>(out));
  }
  CHECK(dtype == out_dtype) << NameOf(dtype) << " added up in " << NameOf(out_dtype);
  const auto reduce = [&]<class T>(T* typed_out) { Reduce<T>(reduction, parts, count, typed_out); };
  switch (dtype) {
    case DType::kF64:
      return reduce(reinterpret_cast<double*>(out));
    case DType::kF32:
      return reduce(reinterpret_cast<float*>(out));
    case DType::kBF16:
      return reduce(reinterpret_cast<BF16*>(out));
    case DType::kI32:
      return reduce(reinterpret_cast<int32_t*>(out));
    case DType::kI64:
      return reduce(reinterpret_cast<int64_t*>(out));
    case DType::kU8:
      CHECK(false) << "bytes are not numbers";
  }
}

}  // namespace moebius
