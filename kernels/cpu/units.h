// The operands of block products: elements of a dtype as 4-byte units. A unit is a float, or two
// bf16 that stand next to each other along the reduction, where the processor multiplies pairs. A
// pair that lacks its second element has a zero there.
#pragma once

#include <cstring>

#include "core/tensor/tensor.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t RoundUp(int64_t n, int64_t unit) { return CeilDiv(n, unit) * unit; }

struct Units {
  Units(DType dtype, const SimdKernels& simd)
      : simd(simd),
        bf16(dtype == DType::kBF16),
        pairs(bf16 && simd.product_bf16 != nullptr),
        product(pairs ? simd.product_bf16 : simd.product) {}

  int64_t per_unit() const { return pairs ? 2 : 1; }
  int64_t Count(int64_t elements) const { return CeilDiv(elements, per_unit()); }

  static const uint16_t* Bits(const Tensor& x) {
    return reinterpret_cast<const uint16_t*>(x.raw());
  }

  // Of a micro-panel of A: its rows, and units between two steps of the reduction where it is
  // packed.
  int64_t rows() const { return pairs ? simd.tile_rows_bf16 : simd.tile_rows; }
  int64_t row_step() const { return RoundUp(rows(), simd.panel / 2); }

  // `n` elements from index `begin` of x on, as floats.
  void Floats(const Tensor& x, int64_t begin, int64_t n, float* floats) const {
    if (bf16) {
      simd.widen(Bits(x) + begin, floats, n);
    } else {
      std::memcpy(floats, x.data<float>() + begin, n * sizeof(float));
    }
  }

  // ... as units, pairs along them.
  void AlongRow(const Tensor& x, int64_t begin, int64_t n, float* units) const {
    if (!pairs) return Floats(x, begin, n, units);
    if (n % 2 != 0) units[n / 2] = 0;
    std::memcpy(units, Bits(x) + begin, n * sizeof(uint16_t));
  }

  const SimdKernels& simd;
  const bool bf16, pairs;
  void (*const product)(const BlockProduct&);
};

}  // namespace moebius::cpu
