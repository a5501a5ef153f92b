#include <immintrin.h>

#include "kernels/cpu/simd_amx_inl.h"
#include "kernels/cpu/simd_bf16_inl.h"

namespace moebius::cpu {
namespace {

double TileMultiplyAdds(int64_t iterations) {
  _tile_loadconfig(&kTileConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t n = 0; n < iterations; ++n) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 2.0 * 2 * kTile * kSide * kSide * static_cast<double>(iterations);
}

}  // namespace

SimdKernels AmxKernels() {
  SimdKernels kernels = MakeSimdKernels<16, 14>("amx");
  kernels.tile_rows_bf16 = kSide;
  kernels.product_bf16 = MultiplyTiles;
  kernels.pack_a.pairs = Pack<Pairs, kTile, kSide>;
  kernels.narrow = NarrowVectors;
  kernels.rows_bf16 = MakeRowKernels<uint16_t, 16, RoundByInstruction>();
  kernels.multiply_adds_bf16 = TileMultiplyAdds;
  return kernels;
}

}  // namespace moebius::cpu
