// Tensors of F32 and BF16 as rows for simd_rows.h.
#pragma once

#include "core/base/check.h"
#include "core/tensor/context.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

// Calls fn(rows, T{}) with the kernels of this processor for F32 or BF16; their elements are T.
template <class Fn>
void WithRows(DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(Simd().rows, float{});
  CHECK(dtype == DType::kBF16) << NameOf(dtype);
  fn(Simd().rows_bf16, uint16_t{});
}

// Where element i stands. REQUIRES: T is that of WithRows for the tensor's dtype.
template <class T>
T* At(const Tensor& x, int64_t i) {
  return reinterpret_cast<T*>(x.raw()) + i;
}

// How to write rows of `row` elements of y. What is larger than caches are leaves them before it is
// read, whatever else happens; to write past them saves reading what is overwritten.
inline Write WriteOf(const Tensor& y, int64_t row, bool accumulate = false) {
  constexpr int64_t kCaches = int64_t{32} << 20, kLine = 64;
  if (accumulate) return Write::kAdd;
  const bool lines =
      reinterpret_cast<uintptr_t>(y.raw()) % kLine == 0 && row * SizeOf(y.dtype()) % kLine == 0;
  return lines && y.bytes() > kCaches ? Write::kStream : Write::kReplace;
}

// Fetches the first lines of a row that is read soon, but not next to the last one: the processor
// itself goes on from there. To fetch whole rows was measured to be slower than to fetch nothing.
inline void FetchStart(const void* row) {
  constexpr int64_t kLine = 64, kLines = 2;
  for (int64_t i = 0; i < kLines; ++i)
    __builtin_prefetch(static_cast<const char*>(row) + i * kLine, 0, 2);
}

// As pool().ForRange, where fn may stream.
template <class Fn>
void ForRange(Context& ctx, int64_t size, int64_t grain, const Fn& fn) {
  ctx.pool().ForRange(size, grain, [&](int64_t begin, int64_t end) {
    fn(begin, end);
    Simd().scores.fence();
  });
}

}  // namespace moebius::cpu
