// What the loops of this folder are made of. They are plain loops over floats that the compiler
// vectorises: reductions say so with `#pragma omp simd reduction`, functions that hold them are
// marked MOEBIUS_CLONES and exist once for each level of x86-64, chosen when the program starts.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>

#include "core/base/check.h"
#include "core/tensor/dtype.h"

// TSan cannot run before the resolvers of clones do.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define MOEBIUS_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MOEBIUS_CLONES
#endif

// A call that is left in a loop keeps it scalar.
#define MOEBIUS_INLINE inline __attribute__((always_inline))

namespace moebius::cpu {

// Elements as floats and back, in a form that vectorises.
MOEBIUS_INLINE float Get(float x) { return x; }
MOEBIUS_INLINE float Get(BF16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
MOEBIUS_INLINE void Put(float& slot, float x) { slot = x; }
MOEBIUS_INLINE void Put(BF16& slot, float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7FFFu + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
  slot.bits = static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}
template <class T>
MOEBIUS_INLINE void Put(T& slot, float x, bool accumulate) {
  // The mask instead of a branch, which would keep the loop scalar; what it hides may be NaN.
  const uint32_t mask = -static_cast<uint32_t>(accumulate);
  Put(slot, std::bit_cast<float>(std::bit_cast<uint32_t>(Get(slot)) & mask) + x);
}

// e^x to 2 ulp, for x in [-87, 88]; x is clamped to that range, NaN stays NaN. Cephes' polynomial.
MOEBIUS_INLINE float Exp(float x) {
  // In this order each is one instruction, and NaN stays.
  x = -87.0f > x ? -87.0f : x;
  x = 88.0f < x ? 88.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

MOEBIUS_INLINE float Logistic(float z) { return 1.0f / (1.0f + Exp(-z)); }

// Calls fn(T{}) with the C++ type of F32 or BF16.
template <class Fn>
void WithType(DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(float{});
  CHECK(dtype == DType::kBF16) << NameOf(dtype);
  fn(BF16{});
}

}  // namespace moebius::cpu
