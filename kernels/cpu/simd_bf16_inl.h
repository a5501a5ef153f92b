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

}  // namespace
}  // namespace moebius::cpu
