// A vector of kWidth floats, its stores past the caches, and squares of them transposed. Included
// by the bodies of SimdKernels alone.
#pragma once

#include "kernels/cpu/simd.h"

namespace moebius::cpu {
namespace {

template <int kWidth>
struct Float {
  typedef float V __attribute__((vector_size(4 * kWidth)));
  typedef int32_t I __attribute__((vector_size(4 * kWidth)));
  typedef float Unaligned __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

  static V Load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }
  static void Store(float* x, V v) { *reinterpret_cast<Unaligned*>(x) = v; }
  static V Set(float x) { return x - V{}; }
  static V Broadcast(const float* x) { return Set(*x); }
  static V MultiplyAdd(V sum, V a, V b) { return sum + a * b; }
  static V Max(V a, V b) { return a > b ? a : b; }
};

// Stores past the caches where there is such a store for so many bytes. `to` is aligned.
template <class Vector>
[[gnu::always_inline]] inline void StreamVector(void* to, Vector v) {
#if defined(__AVX512F__)
  if constexpr (sizeof v == 64) {
    return __builtin_ia32_movntps512(static_cast<float*>(to), (Float<16>::V)v);
  }
#endif
#if defined(__AVX__)
  if constexpr (sizeof v == 32) {
    return __builtin_ia32_movntps256(static_cast<float*>(to), (Float<8>::V)v);
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof v == 16) {
    return __builtin_ia32_movntps(static_cast<float*>(to), (Float<4>::V)v);
  }
#endif
  __builtin_memcpy(to, &v, sizeof v);
}

inline void Fence() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

// v = the columns of x [kWidth, kWidth]: exchanges the off-diagonal blocks of half the size, then
// of a quarter, down to single elements.
template <int kWidth>
[[gnu::always_inline]] inline void LoadTransposed(const float* x, int64_t x_row,
                                                  typename Float<kWidth>::V (&v)[kWidth]) {
  using F = Float<kWidth>;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) v[i] = F::Load(x + i * x_row);
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) {
    // Lanes of (v[i], v[i + half]) for v[i] and for v[i + half].
    typename F::I upper = {}, lower = {};
#pragma GCC unroll 16
    for (int j = 0; j < kWidth; ++j) {
      upper[j] = (j & half) == 0 ? j : j - half + kWidth;
      lower[j] = (j & half) == 0 ? j + half : j + kWidth;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) {
      if ((i & half) != 0) continue;
      const typename F::V a = v[i], b = v[i + half];
      v[i] = __builtin_shuffle(a, b, upper);
      v[i + half] = __builtin_shuffle(a, b, lower);
    }
  }
}

template <int kWidth>
void TransposeSquare(const float* x, int64_t x_row, float* y, int64_t y_row) {
  using F = Float<kWidth>;
  typename F::V v[kWidth];
  LoadTransposed<kWidth>(x, x_row, v);
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) F::Store(y + i * y_row, v[i]);
}

}  // namespace
}  // namespace moebius::cpu
