// Rounding to bf16 by the instruction for it. Included by the sources of processors that have it.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/simd_inl.h"

namespace moebius::cpu {
namespace {

// As Narrow, but for denormals, which become zero.
void NarrowVectors(const float* x, uint16_t* y, int64_t n) {
  constexpr int64_t kWidth = 16;
  for (; n >= kWidth; n -= kWidth, x += kWidth, y += kWidth) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y),
                        (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x)));
  }
  Narrow(x, y, n);
}

// As RoundBits, but for denormals, which become zero.
struct RoundByInstruction {
  template <int kWidth>
  [[gnu::always_inline]] static typename Bits16<kWidth>::V Round(typename Float<kWidth>::V x) {
    return (typename Bits16<kWidth>::V)_mm512_cvtneps_pbh(x);
  }
  template <int kWidth>
  [[gnu::always_inline]] static typename Bits32<kWidth>::V Round(Two<typename Float<kWidth>::V> x) {
    typedef uint16_t H __attribute__((vector_size(64)));
    constexpr H kInTurn = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (typename Bits32<kWidth>::V)__builtin_shuffle((H)_mm512_cvtne2ps_pbh(x.b, x.a), kInTurn);
  }
};

}  // namespace
}  // namespace moebius::cpu
