// Blocks of a weight to panels of its images (weight_images.h), with stores that go past the
// caches: a product reads an image long after it is written. Included by simd_inl.h alone.
#pragma once

#include "kernels/cpu/simd_float_inl.h"

namespace moebius::cpu {
namespace {

// `y` is aligned to the vector, or to 64 bytes. Past the caches where the processor can.
template <int kWidth>
[[gnu::always_inline]] inline void Stream(float* y, typename Float<kWidth>::V v) {
#if defined(__AVX512F__)
  if constexpr (kWidth == 16) return __builtin_ia32_movntps512(y, v);
#endif
#if defined(__AVX__)
  if constexpr (kWidth == 8) return __builtin_ia32_movntps256(y, v);
#endif
#if defined(__SSE2__)
  if constexpr (kWidth == 4) return __builtin_ia32_movntps(y, v);
#endif
  Float<kWidth>::Store(y, v);
}

// What was streamed is visible to other threads once this thread has told them that it is done.
inline void EndStream() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

template <int kWidth>
void PackTransposed(const float* x, int64_t x_row, int64_t columns, float* y) {
  constexpr int64_t kPanel = 2 * kWidth;
  typename Float<kWidth>::V v[kWidth];
  int64_t j = 0;
  for (; j + kWidth <= columns; j += kWidth) {
    for (int64_t half = 0; half < kPanel; half += kWidth) {
      LoadTransposed<kWidth>(x + half * x_row + j, x_row, v);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) Stream<kWidth>(y + (j + i) * kPanel + half, v[i]);
    }
  }
  for (; j < columns; ++j) {
    for (int64_t i = 0; i < kPanel; ++i) y[j * kPanel + i] = x[i * x_row + j];
  }
  EndStream();
}

template <int kWidth>
void PackRows(const float* x, int64_t x_row, int64_t rows, int64_t columns, float* panels,
              int64_t stride) {
  using F = Float<kWidth>;
  for (int64_t j = 0; j < columns; j += 2 * kWidth, panels += stride) {
    float* y = panels;
    for (int64_t i = 0; i < rows; ++i, y += 2 * kWidth) {
      Stream<kWidth>(y, F::Load(x + i * x_row + j));
      Stream<kWidth>(y + kWidth, F::Load(x + i * x_row + j + kWidth));
    }
  }
  EndStream();
}

template <int kWidth>
struct Halves {
  static constexpr int kLanes = 2 * kWidth;
  typedef uint16_t H __attribute__((vector_size(2 * kLanes)));
  typedef uint16_t Unaligned __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

  static H Load(const uint16_t* x) { return *reinterpret_cast<const Unaligned*>(x); }
};

template <int kWidth>
void PackPairs(const uint16_t* x, int64_t x_row, int64_t rows, int64_t columns, float* panels,
               int64_t stride) {
  using V = typename Float<kWidth>::V;
  using H = typename Halves<kWidth>::H;
  constexpr int kPanel = 2 * kWidth;
  H low = {}, high = {};  // which lanes of two rows make the first kWidth pairs, and the others
#pragma GCC unroll 32
  for (int j = 0; j < kPanel; ++j) {
    low[j] = static_cast<uint16_t>(j / 2 + j % 2 * kPanel);
    high[j] = static_cast<uint16_t>(low[j] + kWidth);
  }
  for (int64_t j = 0; j < columns; j += kPanel, panels += stride) {
    float* y = panels;
    const uint16_t* row = x + j;
    for (int64_t i = 0; i < rows; i += 2, row += 2 * x_row, y += kPanel) {
      const H first = Halves<kWidth>::Load(row), second = Halves<kWidth>::Load(row + x_row);
      Stream<kWidth>(y, (V)__builtin_shuffle(first, second, low));
      Stream<kWidth>(y + kWidth, (V)__builtin_shuffle(first, second, high));
    }
  }
  EndStream();
}

}  // namespace
}  // namespace moebius::cpu
