#include "kernels/cpu/simd_bf16_inl.h"

namespace moebius::cpu {
namespace {

struct PairProduct {
  using V = Float<16>::V;
  static constexpr int kProducts = 2;
  static V Broadcast(const float* x) { return Float<16>::Broadcast(x); }
  static V MultiplyAdd(V sum, V a, V b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};

}  // namespace

SimdKernels Avx512Bf16Kernels() {
  SimdKernels kernels = MakeSimdKernels<16, 14>("avx512_bf16");
  kernels.tile_rows_bf16 = 14;
  kernels.product_bf16 = Multiply<PairProduct, 16, 14>;
  kernels.narrow = NarrowVectors;
  kernels.rows_bf16 = MakeRowKernels<uint16_t, 16, RoundByInstruction>();
  kernels.multiply_adds_bf16 = MultiplyAdds<PairProduct, 16, 14>;
  return kernels;
}

}  // namespace moebius::cpu
