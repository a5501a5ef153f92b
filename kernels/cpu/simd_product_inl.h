// Products of blocks, for a vector of kWidth floats and a tile of kRows x 2 vectors, and how rows
// become their operands. Included by simd_inl.h alone.
#pragma once

#include "kernels/cpu/simd_float_inl.h"

namespace moebius::cpu {
namespace {

struct Tile {
  int64_t k;
  const float* a;
  int64_t a_step;  // if transposed
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row, columns;
  float* const* c_rows;  // or, if scattered, column c_column of these
  int64_t c_column;
  const float* scales;  // or null
  bool accumulate, stream;
  const char* fetched;  // meanwhile, `fetch_step` bytes on for each k
  int64_t fetch_step;
};

// What a tile's operand A and its sums are.
enum class TileKind { kRows, kTransposed, kScattered };

template <TileKind kKind>
[[gnu::always_inline]] inline float* RowOf(const Tile& tile, int i) {
  if constexpr (kKind == TileKind::kScattered) return tile.c_rows[i] + tile.c_column;
  return tile.c + i * tile.c_row;
}

template <int kWidth, TileKind kKind>
[[gnu::always_inline]] inline void StoreRow(const Tile& tile, int i, typename Float<kWidth>::V sum0,
                                            typename Float<kWidth>::V sum1) {
  using F = Float<kWidth>;
  float* const c = RowOf<kKind>(tile, i);
  if constexpr (kKind == TileKind::kScattered) {
    const auto scale = F::Set(tile.scales != nullptr ? tile.scales[i] : 1);
    F::Store(c, F::MultiplyAdd(F::Load(c), sum0, scale));
    F::Store(c + kWidth, F::MultiplyAdd(F::Load(c + kWidth), sum1, scale));
  } else if (tile.stream) {
    StreamVector(c, sum0);
    StreamVector(c + kWidth, sum1);
  } else {
    F::Store(c, tile.accumulate ? F::Load(c) + sum0 : sum0);
    F::Store(c + kWidth, tile.accumulate ? F::Load(c + kWidth) + sum1 : sum1);
  }
}

template <int kWidth, int kRows, TileKind kKind>
[[gnu::always_inline]] inline void StoreTile(const Tile& tile,
                                             const typename Float<kWidth>::V (&sum)[kRows][2]) {
  using F = Float<kWidth>;
  if (tile.columns == 2 * kWidth) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) StoreRow<kWidth, kKind>(tile, i, sum[i][0], sum[i][1]);
    return;
  }
  float rows[kRows][2 * kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    F::Store(rows[i], sum[i][0]);
    F::Store(rows[i] + kWidth, sum[i][1]);
  }
  constexpr bool kScattered = kKind == TileKind::kScattered;
  for (int i = 0; i < kRows; ++i) {
    float* const c = RowOf<kKind>(tile, i);
    const float scale = kScattered && tile.scales != nullptr ? tile.scales[i] : 1;
    for (int64_t j = 0; j < tile.columns; ++j)
      c[j] = kScattered || tile.accumulate ? c[j] + scale * rows[i][j] : rows[i][j];
  }
}

// A row is stored once its last kLast steps are done: stores that all come at once, behind the
// loop, would hold up the next tile.
template <class Ops, int kWidth, int kRows, TileKind kKind>
void MultiplyTile(const Tile& tile) {
  using F = Float<kWidth>;
  using V = typename F::V;
  constexpr int kLast = kWidth == 16 ? 3 : 1;
  constexpr bool kTransposed = kKind == TileKind::kTransposed;
  constexpr int64_t kRow = kTransposed ? 1 : kAStride;
  const int64_t a_step = kTransposed ? tile.a_step : 1;
  if (!tile.stream) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      __builtin_prefetch(RowOf<kKind>(tile, i), 1);
      __builtin_prefetch(RowOf<kKind>(tile, i) + 2 * kWidth - 1, 1);
    }
  }
  const bool whole = tile.columns == 2 * kWidth && tile.k >= kLast;
  V sum[kRows][2] = {};
  const float *a = tile.a, *b = tile.b;
  const char* fetched = tile.fetched;
  for (int64_t k = whole ? tile.k - kLast : tile.k; k > 0; --k) {
    const V b0 = F::Load(b), b1 = F::Load(b + kWidth);
    __builtin_prefetch(fetched);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V a_i = Ops::Broadcast(a + i * kRow);
      sum[i][0] = Ops::MultiplyAdd(sum[i][0], a_i, b0);
      sum[i][1] = Ops::MultiplyAdd(sum[i][1], a_i, b1);
    }
    a += a_step;
    b += tile.b_step;
    fetched += tile.fetch_step;
  }
  if (!whole) return StoreTile<kWidth, kRows, kKind>(tile, sum);
  V last[kLast][2];
#pragma GCC unroll 16
  for (int l = 0; l < kLast; ++l) {
    last[l][0] = F::Load(b + l * tile.b_step);
    last[l][1] = F::Load(b + l * tile.b_step + kWidth);
    __builtin_prefetch(fetched + l * tile.fetch_step);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int l = 0; l < kLast; ++l) {
      const V a_i = Ops::Broadcast(a + i * kRow + l * a_step);
      sum[i][0] = Ops::MultiplyAdd(sum[i][0], a_i, last[l][0]);
      sum[i][1] = Ops::MultiplyAdd(sum[i][1], a_i, last[l][1]);
    }
    StoreRow<kWidth, kKind>(tile, i, sum[i][0], sum[i][1]);
    asm volatile("" ::: "memory");  // keeps the rows in order
  }
}

// Calls MultiplyTile for `rows` <= kRows.
template <class Ops, int kWidth, int kRows, TileKind kKind>
void MultiplyRows(int64_t rows, const Tile& tile) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return MultiplyRows<Ops, kWidth, kRows - 1, kKind>(rows, tile);
  }
  MultiplyTile<Ops, kWidth, kRows, kKind>(tile);
}

template <int kWidth>
bool IsAligned(const float* c, int64_t c_row) {
  constexpr uintptr_t kBytes = 4 * kWidth;
  return reinterpret_cast<uintptr_t>(c) % kBytes == 0 && c_row % kWidth == 0;
}

// Fetches lines of the rows ahead, one after the other.
class Fetcher {
 public:
  explicit Fetcher(const RowsAhead (&ahead)[2]) : at_(ahead), end_(ahead + 2) {}

  void Fetch(int64_t lines) {
    constexpr int64_t kLine = 64;
    while (at_ != end_) {
      for (; row_ < at_->num_rows; ++row_, line_ = 0) {
        const char* const row = static_cast<const char*>(at_->rows[row_]);
        for (; line_ < at_->lines; ++line_) {
          if (lines-- == 0) return;
          __builtin_prefetch(row + line_ * kLine, 0, 2);
        }
      }
      ++at_;
      row_ = 0;
    }
  }

 private:
  const RowsAhead *at_, *const end_;
  int64_t row_ = 0, line_ = 0;
};

template <class Ops, int kWidth, int kRows, TileKind kKind>
void MultiplyBlock(const BlockProduct& p) {
  constexpr bool kTransposed = kKind == TileKind::kTransposed;
  constexpr bool kScattered = kKind == TileKind::kScattered;
  constexpr int64_t kPanel = 2 * kWidth;
  const int64_t num_tiles = (p.m + kRows - 1) / kRows;
  const bool stream = p.stream && !p.accumulate && IsAligned<kWidth>(p.c, p.c_row);
  const int64_t all_tiles = num_tiles * ((p.n + kPanel - 1) / kPanel);
  const int64_t lines_ahead =
      p.fetched[0].num_rows * p.fetched[0].lines + p.fetched[1].num_rows * p.fetched[1].lines;
  const int64_t lines_per_tile = (lines_ahead + all_tiles - 1) / all_tiles;
  Fetcher fetcher(p.fetched);
  for (int64_t j = 0; j < p.n; j += kPanel) {
    const float* const b = p.b + j / kPanel * p.b_panel;
    const float* const next = j + kPanel < p.n ? b + p.b_panel : p.next_b;
    const bool fetches_b = next != nullptr && num_tiles > 1 && p.b_step == kPanel;
    for (int64_t t = 0; t < num_tiles; ++t) {
      // Micro-panels are whole; other rows are shared out evenly.
      const int64_t begin = kTransposed ? t * kRows : p.m * t / num_tiles;
      const int64_t end =
          kTransposed ? (p.m < begin + kRows ? p.m : begin + kRows) : p.m * (t + 1) / num_tiles;
      Tile tile = {.k = p.k,
                   .a = p.a + (kTransposed ? t * p.a_panel : begin * kAStride),
                   .a_step = p.a_step,
                   .b = b,
                   .b_step = p.b_step,
                   .c = kScattered ? nullptr : p.c + begin * p.c_row + j,
                   .c_row = p.c_row,
                   .columns = p.n - j < kPanel ? p.n - j : kPanel,
                   .c_rows = kScattered ? p.c_rows + begin : nullptr,
                   .c_column = j,
                   .scales = p.scales != nullptr ? p.scales + begin : nullptr,
                   .accumulate = p.accumulate,
                   .stream = stream,
                   .fetched = reinterpret_cast<const char*>(b),
                   .fetch_step = 0};
      if (fetches_b && t < 2) {  // half a row of the next panel for each k
        tile.fetched = reinterpret_cast<const char*>(next + t * p.k * kWidth);
        tile.fetch_step = 4 * kWidth;
      }
      fetcher.Fetch(lines_per_tile);
      MultiplyRows<Ops, kWidth, kRows, kKind>(end - begin, tile);
    }
  }
  if (stream) Fence();
}

template <class Ops, int kWidth, int kRows>
void Multiply(const BlockProduct& p) {
  if (p.a_transposed) {
    MultiplyBlock<Ops, kWidth, kRows, TileKind::kTransposed>(p);
  } else if (p.c_rows != nullptr) {
    MultiplyBlock<Ops, kWidth, kRows, TileKind::kScattered>(p);
  } else {
    MultiplyBlock<Ops, kWidth, kRows, TileKind::kRows>(p);
  }
}

typedef uint32_t Bits __attribute__((may_alias));

// One row of units, as bits.
struct Floats {
  static constexpr int kRows = 1, kBytes = 4;
  explicit Floats(const void* const* rows) : x(static_cast<const Bits*>(rows[0])) {}
  uint32_t operator[](int64_t i) const { return x[i]; }
  const Bits* x;
};
struct WidenedBf16 {
  static constexpr int kRows = 1, kBytes = 2;
  explicit WidenedBf16(const void* const* rows) : x(static_cast<const uint16_t*>(rows[0])) {}
  uint32_t operator[](int64_t i) const { return uint32_t{x[i]} << 16; }
  const uint16_t* x;
};
struct Pairs {
  static constexpr int kRows = 2, kBytes = 2;
  explicit Pairs(const void* const* rows)
      : x0(static_cast<const uint16_t*>(rows[0])),
        x1(static_cast<const uint16_t*>(rows[rows[1] != nullptr ? 1 : 0])),
        mask(rows[1] != nullptr ? 0xFFFF0000u : 0) {}
  uint32_t operator[](int64_t i) const { return x0[i] | (uint32_t{x1[i]} << 16 & mask); }
  const uint16_t *x0, *x1;
  const uint32_t mask;
};

template <int64_t kCount, class Units>
[[gnu::always_inline]] inline void CopyUnits(const Units units, int64_t i, Bits* __restrict to) {
#pragma GCC unroll 1  // else it is not vectorised
  for (int64_t j = 0; j < kCount; ++j) to[j] = units[i + j];
}

// Panels are kUnits wide; their rows are whole vectors. A few rows at a time, so that what is
// written stands together.
template <class Units, int kWidth, int kUnits>
void Pack(const PanelRows& p) {
  constexpr int64_t kRow = (kUnits + kWidth - 1) / kWidth * kWidth, kBlock = 4;
  for (int64_t begin = 0; begin < p.k; begin += kBlock) {
    const int64_t end = begin + kBlock < p.k ? begin + kBlock : p.k;
    for (int64_t i = 0; i < p.n; i += kUnits) {
      Bits* to = reinterpret_cast<Bits*>(p.panels + i / kUnits * p.panel + begin * kRow);
      for (int64_t k = begin; k < end; ++k, to += kRow) {
        const Units units(p.rows + k * Units::kRows);
        if (k + kPanelRowsAhead < p.k) {
          const void* const* ahead = p.rows + (k + kPanelRowsAhead) * Units::kRows;
#pragma GCC unroll 2
          for (int r = 0; r < Units::kRows; ++r) {
            if (ahead[r] != nullptr)
              __builtin_prefetch(static_cast<const char*>(ahead[r]) + i * Units::kBytes);
          }
        }
        if (i + kRow <= p.n) {
          CopyUnits<kRow>(units, i, to);
        } else {
#pragma GCC unroll 1
          for (int64_t j = 0; j < kRow; ++j) to[j] = j < kUnits && i + j < p.n ? units[i + j] : 0;
        }
      }
    }
  }
}

template <int kWidth, int kUnits>
constexpr Packing MakePacking() {
  return {Pack<Floats, kWidth, kUnits>, Pack<WidenedBf16, kWidth, kUnits>,
          Pack<Pairs, kWidth, kUnits>};
}

}  // namespace
}  // namespace moebius::cpu
