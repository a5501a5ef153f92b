// The bodies of SimdKernels, for a vector of kWidth floats.
// Included by the source of each instruction set alone.
#pragma once

#include "kernels/cpu/simd_float_inl.h"
#include "kernels/cpu/simd_pack_inl.h"
#include "kernels/cpu/simd_product_inl.h"

namespace moebius::cpu {
namespace {

void Widen(const uint16_t* x, float* y, int64_t n) {
  Bits* bits = reinterpret_cast<Bits*>(y);
  for (int64_t i = 0; i < n; ++i) bits[i] = uint32_t{x[i]} << 16;
}

void Narrow(const float* x, uint16_t* y, int64_t n) {
  const Bits* bits = reinterpret_cast<const Bits*>(x);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = bits[i];
    const uint32_t rounded = (u + 0x7FFFu + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    y[i] = static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
  }
}

void Interleave(const uint16_t* x0, const uint16_t* x1, float* y, int64_t n) {
  Bits* bits = reinterpret_cast<Bits*>(y);
  if (x1 == nullptr) {
    for (int64_t i = 0; i < n; ++i) bits[i] = x0[i];
  } else {
    for (int64_t i = 0; i < n; ++i) bits[i] = x0[i] | uint32_t{x1[i]} << 16;
  }
}

template <int kWidth>
void TransposePanel(const float* x, int64_t x_row, int64_t rows, int64_t columns, float* y) {
  constexpr int64_t kPanel = 2 * kWidth;
  int64_t j = 0;
  for (; rows == kPanel && j + kWidth <= columns; j += kWidth) {
    TransposeSquare<kWidth>(x + j, x_row, y + j * kPanel, kPanel);
    TransposeSquare<kWidth>(x + kWidth * x_row + j, x_row, y + j * kPanel + kWidth, kPanel);
  }
  for (; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) y[j * kPanel + i] = x[i * x_row + j];
    for (int64_t i = rows; i < kPanel; ++i) y[j * kPanel + i] = 0;
  }
}

constexpr float kLog2E = 1.44269504f;

// 2^x for x <= 0 and a little above, to 2 units in the last place; zero below -126 and for
// -infinity; NaN stays NaN. x = n + r with |r| <= 1/2; the polynomial is the one of degree 6 whose
// largest relative error is least, 2^-29.
template <int kWidth>
[[gnu::always_inline]] inline typename Float<kWidth>::V Exp2(typename Float<kWidth>::V x) {
  using F = Float<kWidth>;
  using V = typename F::V;
  using I = typename F::I;
  // Adding 1.5 * 2^23 rounds to an integer; its last bits are then n, here with a float's bias.
  constexpr float kRound = 12582912.0f + 127;
  const V smallest = F::Set(-126);
  const V shifted = F::Max(smallest, x) + kRound;
  const V r = F::Max(smallest, x) - (shifted - kRound);
  V p = F::Set(1.5345812e-4f);
  p = p * r + 1.33999312e-3f;
  p = p * r + 9.61848896e-3f;
  p = p * r + 0.0555032878f;
  p = p * r + 0.240226469f;
  p = p * r + 0.693147206f;
  p = p * r + 1.0f;
  const V y = p * (V)((I)shifted << 23);
  return x < smallest ? V{} : y;
}

// The combination of all lanes, by halves.
template <int kWidth, int kHalf = kWidth / 2, class Combine>
[[gnu::always_inline]] inline float Reduce(typename Float<kWidth>::V v, const Combine& combine) {
  typename Float<kWidth>::I other = {};
#pragma GCC unroll 16
  for (int j = 0; j < kWidth; ++j) other[j] = j ^ kHalf;
  v = combine(v, __builtin_shuffle(v, other));
  if constexpr (kHalf > 1) {
    return Reduce<kWidth, kHalf / 2>(v, combine);
  } else {
    return v[0];
  }
}

template <int kWidth>
[[gnu::always_inline]] inline float Sum(typename Float<kWidth>::V v) {
  using V = typename Float<kWidth>::V;
  return Reduce<kWidth>(v, [](V a, V b) { return a + b; });
}

template <int kWidth>
float ExpRow(float* s, int64_t n, float scale, float shift) {
  using F = Float<kWidth>;
  scale *= kLog2E;
  shift *= kLog2E;
  typename F::V sum = {};
  for (int64_t i = 0; i < n; i += kWidth) {
    const typename F::V e = Exp2<kWidth>(F::Load(s + i) * scale - shift);
    F::Store(s + i, e);
    sum += e;
  }
  return Sum<kWidth>(sum);
}

void SoftmaxGradientRow(const float* p, float* dp, int64_t n, float delta) {
  for (int64_t i = 0; i < n; ++i) dp[i] = p[i] * (dp[i] - delta);
}

void ScaleRow(float* x, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

// A tile's sums with both factors kept in registers.
template <class Ops, int kWidth, int kRows>
double MultiplyAdds(int64_t iterations) {
  using F = Float<kWidth>;
  typename F::V sum[kRows][2] = {};
  typename F::V a = {}, b = {};
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      sum[i][0] = Ops::MultiplyAdd(sum[i][0], a, b);
      sum[i][1] = Ops::MultiplyAdd(sum[i][1], a, b);
      asm volatile("" : "+x"(sum[i][0]), "+x"(sum[i][1]));
    }
  }
  return 2.0 * Ops::kProducts * 2 * kRows * kWidth * static_cast<double>(iterations);
}

}  // namespace
}  // namespace moebius::cpu

#include "kernels/cpu/simd_top_k_inl.h"

namespace moebius::cpu {
namespace {

template <int kWidth>
struct FloatProduct : Float<kWidth> {
  static constexpr int kProducts = 1;  // products summed in a lane by one MultiplyAdd
};

template <int kWidth, int kRows>
SimdKernels MakeSimdKernels(const char* name) {
  using Ops = FloatProduct<kWidth>;
  return {.name = name,
          .panel = 2 * kWidth,
          .tile_rows = kRows,
          .tile_rows_bf16 = 0,
          .product = Multiply<Ops, kWidth, kRows>,
          .product_bf16 = nullptr,
          .widen = Widen,
          .narrow = Narrow,
          .interleave = Interleave,
          .pack_a = MakePacking<kWidth, kRows>(),
          .pack_b = MakePacking<kWidth, 2 * kWidth>(),
          .transpose_panel = TransposePanel<kWidth>,
          .pack_transposed = PackTransposed<kWidth>,
          .pack_rows = PackRows<kWidth>,
          .pack_pairs = PackPairs<kWidth>,
          .exp_row = ExpRow<kWidth>,
          .softmax_gradient_row = SoftmaxGradientRow,
          .scale_row = ScaleRow,
          .multiply_adds = MultiplyAdds<Ops, kWidth, kRows>,
          .multiply_adds_bf16 = nullptr,
          .rows = MakeRowKernels<float, kWidth, RoundBits>(),
          .rows_bf16 = MakeRowKernels<uint16_t, kWidth, RoundBits>(),
          .scores = MakeScoreKernels<kWidth>()};
}

}  // namespace
}  // namespace moebius::cpu
