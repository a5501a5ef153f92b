// The inner loops of the heavy kernels, compiled once for each instruction set and chosen at run
// time. Numbers are 4-byte units: a float, or a pair of bf16 that stand next to each other along
// the reduction.
//
// The sources of one instruction set include nothing with inline functions, so that no code built
// for a newer processor can be linked into the rest of the program.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/simd_rows.h"

namespace moebius::cpu {

// Units between two rows of a copied operand A. Odd in cache lines, so that rows spread over the
// sets of a cache; a constant, so that a tile's rows need one pointer.
inline constexpr int64_t kAStride = 272;
inline constexpr int64_t kMaxDepth = 256;  // units of one reduction step, and columns of A

// Rows that are needed next: they are brought into the second-level cache meanwhile.
struct RowsAhead {
  const void* const* rows = nullptr;
  int64_t num_rows = 0, lines = 0;  // of 64 bytes, of each row
};

// c[m, n] (+)= a[m, k] b[k, n] of m, n > 0, reducing k in order. A[i, k] stands at a[i * kAStride +
// k], or, if `a_transposed`, in micro-panels of `rows`: at a[i / rows * a_panel + k * a_step + i %
// rows], where `rows` is SimdKernels::tile_rows, or tile_rows_bf16 for pairs. B is cut into panels
// of SimdKernels::panel columns: element (k, j) at b[j / panel * b_panel + k * b_step + j % panel];
// its last panel is readable, and finite, to the full width. For pairs, A is readable to whole
// blocks of 32 rows (columns, if transposed).
struct BlockProduct {
  int64_t m = 0, n = 0, k = 0;  // k in units, any number
  const float* a = nullptr;
  bool a_transposed = false;
  int64_t a_panel = 0, a_step = 0;
  const float* b = nullptr;
  int64_t b_panel = 0, b_step = 0;
  const float* next_b = nullptr;  // the panel that the next product begins with, if it is known
  RowsAhead fetched[2] = {};
  float* c = nullptr;
  int64_t c_row = 0;
  // Instead of c, `accumulate` and `stream`: row i of the product times scales[i] (null: 1) is
  // added to the row at c_rows[i]. Not with transposed A.
  float* const* c_rows = nullptr;
  const float* scales = nullptr;
  bool accumulate = false;
  bool stream = false;  // c goes to memory past the caches, if it is aligned; not if `accumulate`
};

// Rows of n units to packed panels. Unit i of row k goes to
// panels[i / width * panel + k * row + i % width]: `width` units make a panel, whose rows are whole
// vectors of SimdKernels::panel / 2 units. What a row lacks is zero.
struct PanelRows {
  const void* const* rows = nullptr;  // k, or 2 k of pairs, the last of which may be null: zeros
  int64_t k = 0, n = 0;
  float* panels = nullptr;
  int64_t panel = 0;
};
inline constexpr int64_t kPanelRowsAhead = 8;  // rows of units are fetched so many earlier
struct Packing {
  void (*floats)(const PanelRows&);
  void (*widened)(const PanelRows&);  // rows of bf16, as floats
  void (*pairs)(const PanelRows&);    // two rows of bf16 at a time
};

struct SimdKernels {
  const char* name;
  int64_t panel;
  int64_t tile_rows, tile_rows_bf16;          // of a micro-panel of A, for each product
  void (*product)(const BlockProduct&);       // units are floats
  void (*product_bf16)(const BlockProduct&);  // units are pairs of bf16; null: convert to float

  void (*widen)(const uint16_t* x, float* y, int64_t n);   // bf16 to float
  void (*narrow)(const float* x, uint16_t* y, int64_t n);  // to nearest, ties to even
  // y = pairs (x0[i], x1[i]); x1 null: (x0[i], 0).
  void (*interleave)(const uint16_t* x0, const uint16_t* x1, float* y, int64_t n);
  Packing pack_a, pack_b;  // micro-panels of A, panels of B
  // y[j, i] = x[i, j] for i < rows, j < columns; rows <= panel; y's rows are `panel` units apart,
  // and what a row lacks is zero.
  void (*transpose_panel)(const float* x, int64_t x_row, int64_t rows, int64_t columns, float* y);

  // Blocks of a weight, `x_row` elements from row to row, to panels of its image that are aligned
  // to 64 bytes, with stores that go past the caches. Rows and columns that the panels lack are
  // there, and zero.
  // y[j, i] = x[i, j] for i < panel, j < columns
  void (*pack_transposed)(const float* x, int64_t x_row, int64_t columns, float* y);
  // Rows to panels of `panel` columns each, that stand `stride` apart; `columns` fills them.
  void (*pack_rows)(const float* x, int64_t x_row, int64_t rows, int64_t columns, float* panels,
                    int64_t stride);
  // ... pairs of two rows each; `rows` is even.
  void (*pack_pairs)(const uint16_t* x, int64_t x_row, int64_t rows, int64_t columns, float* panels,
                     int64_t stride);

  // Rows of scores: n is a multiple of `panel`, and -infinity gives an exact zero.
  // s = exp(scale * s - shift), and the sum of that; shift is finite.
  float (*exp_row)(float* s, int64_t n, float scale, float shift);
  void (*softmax_gradient_row)(const float* p, float* dp, int64_t n,
                               float delta);  // dp = p * (dp - delta)

  void (*scale_row)(float* x, int64_t n, float scale);

  double (*multiply_adds)(int64_t iterations);       // float operations done, from registers
  double (*multiply_adds_bf16)(int64_t iterations);  // null: as `product_bf16`

  RowKernels<float> rows = {};
  RowKernels<uint16_t> rows_bf16 = {};
  ScoreKernels scores = {};
};

// The fastest on this processor, by what it is, never by timing; and all that run on it, slowest
// first.
const SimdKernels& Simd();
std::vector<const SimdKernels*> SupportedSimd();

}  // namespace moebius::cpu
