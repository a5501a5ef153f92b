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

  // scores [queries, keys] = a [queries, C] times the panels of keys from k0 on
  void AgainstKeys(const float* a, int64_t queries, const float* panels, int64_t k0, int64_t keys,
                   float* scores) const {
    units.product({.m = queries,
                   .n = RoundUp(keys, panel()),
                   .k = depth,
                   .a = a,
                   .b = panels + k0 * depth,
                   .b_panel = panel() * depth,
                   .b_step = panel(),
                   .c = scores,
                   .c_row = kAStride});
  }

  // sums [queries, C] += a [queries, keys] times the rows of keys from k0 on
  void TimesRows(const float* a, int64_t queries, const float* rows, int64_t k0, int64_t keys,
                 float* sums) const {
    BlockProduct p = Sums(queries, keys, sums);
    p.a = a;
    p.b = rows + RowsAt(k0);
    p.b_step = padded;
    units.product(p);
  }

  // sums [keys, C] += a [queries, keys]^T rows [queries, C], whose units are kAStride apart
  void TransposedTimesRows(const float* a, int64_t keys, const float* rows, int64_t queries,
                           float* sums) const {
    BlockProduct p = Sums(keys, queries, sums);
    p.a = a;
    p.a_transposed = true;
    p.a_panel = units.rows();
    p.a_step = kAStride;
    p.b = rows;
    p.b_step = kAStride;
    units.product(p);
  }

  // Rows of scores as units along them: themselves, or written to `to`.
  const float* Along(const float* scores, int64_t queries, int64_t keys, float* to) const {
    if (!units.pairs) return scores;
    for (int64_t i = 0; i < queries; ++i) {
      units.simd.narrow(scores + i * kAStride, reinterpret_cast<uint16_t*>(to + i * kAStride),
                        RoundUp(keys, panel()));
    }
    return to;
  }

  // What Along gave, as units across rows: itself, or written to `to`.
  const float* Across(const float* rows, int64_t queries, int64_t keys, float* to) const {
    if (!units.pairs) return rows;
    for (int64_t i = 0; i < queries; i += 2) {
      const uint16_t* first = reinterpret_cast<const uint16_t*>(rows + i * kAStride);
      units.simd.interleave(first, i + 1 == queries ? nullptr : first + 2 * kAStride,
                            to + i / 2 * kAStride, RoundUp(keys, panel()));
    }
    return to;
  }

  const Units units;
  const int64_t width, depth, padded;

 private:
  // sums [m, C] += what is to be told
  BlockProduct Sums(int64_t m, int64_t reduced, float* sums) const {
    return {.m = m,
            .n = padded,
            .k = units.Count(reduced),
            .b_panel = panel(),
            .c = sums,
            .c_row = padded,
            .accumulate = true};
  }
};

}  // namespace moebius::cpu
