// The rows of one head as operands, and its products with blocks of queries and keys. For attention
// alone.
#pragma once

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {

using kernels::AttentionShape;

inline constexpr int64_t kQueryBlock = 32;
inline constexpr int64_t kKeyBlock = kMaxDepth;
inline constexpr int64_t kBlock = kQueryBlock * kAStride;  // units of a block of rows

// One head of a tensor [rows, heads * C], whose row 0 is the tensor's row `row`.
class Head {
 public:
  Head(const Tensor& x, int64_t row, int64_t head, int64_t C, const Units& units)
      : x_(x), width_(C), stride_(x.shape()[1]), begin_(row * stride_ + head * C), units_(units) {}

  // Row i as floats.
  void Read(int64_t i, float* to) const { units_.Floats(x_, At(i), width_, to); }

  // Rows i .. i + n as units along them: an operand A.
  void Along(int64_t i, int64_t n, float* to) const {
    for (int64_t r = 0; r < n; ++r) units_.AlongRow(x_, At(i + r), width_, to + r * kAStride);
  }

  // Rows i .. i + n as units across them, padded with zeros to `padded`: an operand B.
  void Across(int64_t i, int64_t n, int64_t padded, float* to) const {
    for (int64_t r = 0; r < n; r += units_.per_unit(), to += padded) {
      units_.AcrossRows(x_, At(i + r), r + 1 == n ? -1 : At(i + r + 1), width_, to);
      std::fill(to + width_, to + padded, 0.0f);
    }
  }

  // Row i, from `from` (which may be changed). `old` is a row of scratch.
  void Write(int64_t i, float* from, bool accumulate, float* old) const {
    if (accumulate) {
      Read(i, old);
      for (int64_t c = 0; c < width_; ++c) from[c] += old[c];
    }
    if (units_.bf16) {
      units_.simd.narrow(from, reinterpret_cast<uint16_t*>(x_.raw()) + At(i), width_);
    } else {
      std::copy_n(from, width_, x_.data<float>() + At(i));
    }
  }

 private:
  int64_t At(int64_t i) const { return begin_ + i * stride_; }

  const Tensor& x_;
  const int64_t width_, stride_, begin_;
  const Units& units_;
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

  // S rows of a head, transposed into panels. `block` is scratch.
  void Transpose(const Head& head, int64_t S, float* block, float* panels) const {
    for (int64_t i = 0; i < S; i += panel()) {
      const int64_t rows = std::min(panel(), S - i);
      head.Along(i, rows, block);
      units.simd.transpose_panel(block, kAStride, rows, depth, panels + i * depth);
    }
  }

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
    AddProduct(a, false, queries, rows + k0 / units.per_unit() * padded, keys, sums);
  }

  // sums [keys, C] += a [queries, keys]^T rows [queries, C]
  void TransposedTimesRows(const float* a, int64_t keys, const float* rows, int64_t queries,
                           float* sums) const {
    AddProduct(a, true, keys, rows, queries, sums);
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
  void AddProduct(const float* a, bool a_transposed, int64_t m, const float* rows, int64_t reduced,
                  float* sums) const {
    units.product({.m = m,
                   .n = padded,
                   .k = units.Count(reduced),
                   .a = a,
                   .a_transposed = a_transposed,
                   .a_panel = units.rows(),
                   .a_step = kAStride,
                   .b = rows,
                   .b_panel = panel(),
                   .b_step = padded,
                   .c = sums,
                   .c_row = padded,
                   .accumulate = true});
  }
};

}  // namespace moebius::cpu
