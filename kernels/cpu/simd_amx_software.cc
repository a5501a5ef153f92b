#include "kernels/cpu/simd_amx_software.h"

#include <bit>
#include <cstring>

namespace moebius::cpu {
namespace {

thread_local float tiles[8][16][16];

void _tile_loadconfig(const void*) {}
void _tile_release() {}
void _tile_zero(int t) { std::memset(tiles[t], 0, sizeof tiles[t]); }
void _tile_loadd(int t, const void* from, int64_t row_bytes) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(tiles[t][i], static_cast<const char*>(from) + i * row_bytes, 64);
  }
}
void _tile_stored(int t, void* to, int64_t row_bytes) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(static_cast<char*>(to) + i * row_bytes, tiles[t][i], 64);
  }
}
float Half(float unit, int half) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(unit) >> (16 * half) << 16);
}
void _tile_dpbf16ps(int c, int a, int b) {
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 16; ++j) {
        for (int half = 0; half < 2; ++half) {
          tiles[c][i][j] += Half(tiles[a][i][k], half) * Half(tiles[b][k][j], half);
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::cpu

#include "kernels/cpu/simd_amx_inl.h"

namespace moebius::cpu {

SimdKernels SoftwareAmxKernels() {
  return {.name = "amx in software",
          .panel = kSide,
          .tile_rows = 4,
          .tile_rows_bf16 = kSide,
          .product = Multiply<FloatProduct<kTile>, kTile, 4>,
          .product_bf16 = MultiplyTiles,
          .widen = Widen,
          .narrow = Narrow,
          .interleave = Interleave,
          .pack_a = {Pack<Floats, kTile, 4>, nullptr, Pack<Pairs, kTile, kSide>},
          .pack_b = MakePacking<kTile, kSide>(),
          .transpose_panel = TransposePanel<kTile>,
          .pack_transposed = PackTransposed<kTile>,
          .pack_rows = PackRows<kTile>,
          .pack_pairs = PackPairs<kTile>,
          .exp_row = ExpRow<kTile>,
          .softmax_gradient_row = SoftmaxGradientRow,
          .scale_row = ScaleRow,
          .multiply_adds = nullptr,
          .multiply_adds_bf16 = nullptr,
          .rows = MakeRowKernels<float, kTile, RoundBits>(),
          .rows_bf16 = MakeRowKernels<uint16_t, kTile, RoundBits>(),
          .scores = MakeScoreKernels<kTile>()};
}

}  // namespace moebius::cpu
