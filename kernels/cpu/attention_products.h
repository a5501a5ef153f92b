// The products of one head with blocks of queries and keys. For attention alone.
#pragma once

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/attention_head.h"

namespace moebius::cpu {

using kernels::AttentionShape;

inline constexpr int64_t kQueryBlock = 32;
inline constexpr int64_t kKeyBlock = kMaxDepth;
inline constexpr int64_t kBlock = kQueryBlock * kAStride;  // units of a block of rows

// Scores of consecutive queries against the keys k0 .. k0 + keys. Query i sees no more than the
// first `seen` + i of them; where it sees none, that may be negative.
struct ScoreBlock {
  int64_t queries, k0, keys, seen;
};

// The products of one head with blocks of at most kQueryBlock queries and kKeyBlock keys, which
// begin with a panel. Rows of C sums or units across rows are `padded` wide, the head's width in
// whole panels; rows of scores are kAStride apart, and valid to whole panels of keys.
struct HeadProducts {
  HeadProducts(const AttentionShape& shape, DType dtype, const SimdKernels& simd)
      : units(dtype, simd),
        width(shape.head_dim),
        depth(units.Count(width)),
        padded(RoundUp(width, panel())) {}

  int64_t panel() const { return units.simd.panel; }
  int64_t PanelsSize(int64_t S) const { return RoundUp(S, panel()) * depth; }
  int64_t RowsSize(int64_t S) const { return units.Count(S) * padded; }
  // Where the rows of key `i`, the first of a panel, begin in rows of units across them.
  int64_t RowsAt(int64_t i) const { return i / units.per_unit() * padded; }

  // scores [queries, keys] = a [queries, C] times the panels of keys
  void AgainstKeys(const float* a, const ScoreBlock& block, const float* panels,
                   float* scores) const {
    units.product({.m = block.queries,
                   .n = RoundUp(block.keys, panel()),
                   .k = depth,
                   .a = a,
                   .b = panels + block.k0 * depth,
                   .b_panel = panel() * depth,
                   .b_step = panel(),
                   .c = scores,
                   .c_row = kAStride});
  }

  // sums [queries, C] += a [queries, keys] times the rows of keys: each tile of queries times those
  // that it sees
  void TimesRows(const float* a, const ScoreBlock& block, const float* rows, float* sums) const {
    const int64_t tiles = block.seen < block.keys ? CeilDiv(block.queries, units.rows()) : 1;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = block.queries * t / tiles, end = block.queries * (t + 1) / tiles;
      BlockProduct p = Sums(end - begin, std::min(block.seen + end - 1, block.keys), sums, begin);
      p.a = a + begin * kAStride;
      p.b = rows + RowsAt(block.k0);
      p.b_step = padded;
      if (p.k > 0) units.product(p);
    }
  }

  // sums [keys, C] += a [queries, keys]^T rows [queries, C], whose units are kAStride apart: each
  // micro-panel of keys times the queries that see it
  void TransposedTimesRows(const float* a, const ScoreBlock& block, const float* rows,
                           float* sums) const {
    const int64_t tile = units.rows(), per_unit = units.per_unit();
    for (int64_t begin = 0, end; begin < block.keys; begin = end) {
      const int64_t skipped = std::max<int64_t>(begin + 1 - block.seen, 0) / per_unit;  // units
      end = std::min(std::max(begin + tile, RoundUp(block.seen, tile)), block.keys);
      BlockProduct p =
          Sums(end - begin, block.queries - skipped * per_unit, sums, block.k0 + begin);
      p.a = a + begin + skipped * kAStride;
      p.a_transposed = true;
      p.a_panel = tile;
      p.a_step = kAStride;
      p.b = rows + skipped * kAStride;
      p.b_step = kAStride;
      units.product(p);
    }
  }

  // Rows of scores as units along them: themselves, or written to `to`.
  const float* Along(const float* scores, const ScoreBlock& block, float* to) const {
    if (!units.pairs) return scores;
    for (int64_t i = 0; i < block.queries; ++i) {
      units.simd.narrow(scores + i * kAStride, reinterpret_cast<uint16_t*>(to + i * kAStride),
                        RoundUp(block.keys, panel()));
    }
    return to;
  }

  // What Along gave, as units across rows: itself, or written to `to`.
  const float* Across(const float* rows, const ScoreBlock& block, float* to) const {
    if (!units.pairs) return rows;
    for (int64_t i = 0; i < block.queries; i += 2) {
      const uint16_t* first = reinterpret_cast<const uint16_t*>(rows + i * kAStride);
      units.simd.interleave(first, i + 1 == block.queries ? nullptr : first + 2 * kAStride,
                            to + i / 2 * kAStride, RoundUp(block.keys, panel()));
    }
    return to;
  }

  const Units units;
  const int64_t width, depth, padded;

 private:
  // m sums from row `begin` on += what is to be told
  BlockProduct Sums(int64_t m, int64_t reduced, float* sums, int64_t begin) const {
    return {.m = m,
            .n = padded,
            .k = units.Count(reduced),
            .b_panel = panel(),
            .c = sums + begin * padded,
            .c_row = padded,
            .accumulate = true};
  }
};

}  // namespace moebius::cpu
