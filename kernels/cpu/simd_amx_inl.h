// Products of bf16 pairs with AMX tiles: a tile of sums is 16 x 16 floats, of A 16 rows of 16
// pairs, of B 16 pairs for 16 columns; four tiles of sums stand 2 x 2.
//
// Included where the tile intrinsics are declared: by the processor's header, or by a test that
// plays them in software. The intrinsics do not tell the compiler that they read memory, hence the
// barriers.
#pragma once

#include "kernels/cpu/simd_inl.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTile = 16, kSide = 2 * kTile;

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) constexpr TileConfig kTileConfig;
static_assert(sizeof(TileConfig) == 64);

inline void StoresAreVisible() { asm volatile("" ::: "memory"); }

// sums += a [32, 16 pairs] b [16 pairs, 32]
inline void AddTiles(const float* a, int64_t a_row, const float* b, int64_t b_step) {
  const int64_t a_bytes = a_row * 4, b_bytes = b_step * 4;
  _tile_loadd(4, a, a_bytes);
  _tile_loadd(5, a + kTile * a_row, a_bytes);
  _tile_loadd(6, b, b_bytes);
  _tile_loadd(7, b + kTile, b_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// Of the last k < 16 pairs, from copies padded with zeros.
void AddTail(int64_t k, const float* a, const float* b, int64_t b_step) {
  float a_tail[kSide][kTile] = {}, b_tail[kTile][kSide] = {};
  for (int64_t i = 0; i < kSide; ++i) {
    for (int64_t u = 0; u < k; ++u) a_tail[i][u] = a[i * kAStride + u];
  }
  for (int64_t u = 0; u < k; ++u) {
    for (int64_t j = 0; j < kSide; ++j) b_tail[u][j] = b[u * b_step + j];
  }
  StoresAreVisible();
  AddTiles(a_tail[0], kTile, b_tail[0], kSide);
}

// c [32, 32] (+)= a [32, k] b [k, 32]
void MultiplySquare(int64_t k, const float* a, const float* b, int64_t b_step, float* c,
                    int64_t c_row, bool accumulate) {
  float* const lower = c + kTile * c_row;
  const int64_t c_bytes = c_row * 4;
  StoresAreVisible();
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + kTile, c_bytes);
    _tile_loadd(2, lower, c_bytes);
    _tile_loadd(3, lower + kTile, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (; k >= kTile; k -= kTile, a += kTile, b += kTile * b_step) AddTiles(a, kAStride, b, b_step);
  if (k > 0) AddTail(k, a, b, b_step);
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + kTile, c_bytes);
  _tile_stored(2, lower, c_bytes);
  _tile_stored(3, lower + kTile, c_bytes);
}

// As MultiplySquare, of c's first `rows` and `columns` alone.
void MultiplyEdge(int64_t k, const float* a, const float* b, int64_t b_step, float* c,
                  int64_t c_row, bool accumulate, int64_t rows, int64_t columns) {
  float square[kSide][kSide] = {};
  for (int64_t i = 0; accumulate && i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) square[i][j] = c[i * c_row + j];
  }
  MultiplySquare(k, a, b, b_step, square[0], kSide, true);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) c[i * c_row + j] = square[i][j];
  }
}

// Rows i .. i + rows of p's product and its columns j .. j + columns, to where p scatters them.
void MultiplyScattered(const BlockProduct& p, int64_t i, int64_t rows, int64_t j, int64_t columns) {
  float square[kSide][kSide];
  MultiplySquare(p.k, p.a + i * kAStride, p.b + j / kSide * p.b_panel, p.b_step, square[0], kSide,
                 false);
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = p.scales != nullptr ? p.scales[i + r] : 1;
    float* const c = p.c_rows[i + r] + j;
    for (int64_t q = 0; q < columns; ++q) c[q] += scale * square[r][q];
  }
}

// rows [32, k] of what stands transposed at a [k, 32], whose rows are `a_step` apart
void TransposeStrip(const float* a, int64_t a_step, int64_t k, float* rows) {
  int64_t u = 0;
  for (; u + kTile <= k; u += kTile) {
    TransposeSquare<kTile>(a + u * a_step, a_step, rows + u, kAStride);
    TransposeSquare<kTile>(a + u * a_step + kTile, a_step, rows + kTile * kAStride + u, kAStride);
  }
  for (; u < k; ++u) {
    for (int64_t i = 0; i < kSide; ++i) rows[i * kAStride + u] = a[u * a_step + i];
  }
}

void MultiplyTiles(const BlockProduct& p) {
  alignas(64) float transposed[kSide * kAStride];
  _tile_loadconfig(&kTileConfig);
  for (int64_t i = 0; i < p.m; i += kSide) {
    const float* a = p.a + (p.a_transposed ? i / kSide * p.a_panel : i * kAStride);
    if (p.a_transposed) {
      TransposeStrip(a, p.a_step, p.k, transposed);
      a = transposed;
    }
    const int64_t rows = p.m - i < kSide ? p.m - i : kSide;
    for (int64_t j = 0; j < p.n; j += kSide) {
      const int64_t columns = p.n - j < kSide ? p.n - j : kSide;
      const float* b = p.b + j / kSide * p.b_panel;
      if (p.c_rows != nullptr) {
        MultiplyScattered(p, i, rows, j, columns);
        continue;
      }
      float* c = p.c + i * p.c_row + j;
      if (rows == kSide && columns == kSide) {
        MultiplySquare(p.k, a, b, p.b_step, c, p.c_row, p.accumulate);
      } else {
        MultiplyEdge(p.k, a, b, p.b_step, c, p.c_row, p.accumulate, rows, columns);
      }
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace moebius::cpu
