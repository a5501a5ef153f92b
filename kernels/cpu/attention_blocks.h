// What attention forward and backward are made of: a sequence as its queries see it, the rows of
// one head, its products with blocks of keys, and the walk over blocks. For attention.cc alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

using kernels::AttentionShape;

inline constexpr int64_t kQueryBlock = 32;
inline constexpr int64_t kKeyBlock = kMaxDepth;
inline constexpr int64_t kBlock = kQueryBlock * kAStride;  // floats of a block of rows

inline int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// One head of a tensor [rows, heads * C], whose row 0 is the tensor's row `row`.
class Head {
 public:
  Head(const Tensor& x, int64_t row, int64_t head, int64_t C, const SimdKernels& simd)
      : x_(x), width_(C), stride_(x.shape()[1]), begin_(row * stride_ + head * C), simd_(simd) {}

  // Row i as floats, padded with zeros to `padded`.
  void Read(int64_t i, int64_t padded, float* to) const {
    const int64_t at = begin_ + i * stride_;
    if (x_.dtype() == DType::kF32) {
      std::memcpy(to, x_.data<float>() + at, width_ * sizeof(float));
    } else {
      simd_.widen(reinterpret_cast<const uint16_t*>(x_.raw()) + at, to, width_);
    }
    std::fill(to + width_, to + padded, 0.0f);
  }

  void ReadAll(int64_t rows, int64_t padded, float* to) const {
    for (int64_t i = 0; i < rows; ++i) Read(i, padded, to + i * padded);
  }

  // Row i, from `from` (which may be changed). `old` is a row of scratch.
  void Write(int64_t i, float* from, bool accumulate, float* old) const {
    if (accumulate) {
      Read(i, width_, old);
      for (int64_t c = 0; c < width_; ++c) from[c] += old[c];
    }
    const int64_t at = begin_ + i * stride_;
    if (x_.dtype() == DType::kF32) {
      std::memcpy(x_.data<float>() + at, from, width_ * sizeof(float));
    } else {
      simd_.narrow(from, reinterpret_cast<uint16_t*>(x_.raw()) + at, width_);
    }
  }

 private:
  const Tensor& x_;
  const int64_t width_, stride_, begin_;
  const SimdKernels& simd_;
};

// The products of one head, over queries q0 .. q1 and keys k0 .. k1 of a sequence. `padded` is the
// head's width in whole panels; rows of keys and values are that wide.
struct HeadProducts {
  const SimdKernels& simd;
  int64_t width, padded;

  int64_t Panels(int64_t S) const { return RoundUp(S, simd.panel) * width; }  // floats

  // Rows 0 .. S of `rows`, transposed into panels of keys.
  void Transpose(const float* rows, int64_t S, float* panels) const {
    for (int64_t i = 0; i < S; i += simd.panel) {
      simd.transpose_panel(rows + i * padded, padded, std::min(simd.panel, S - i), width,
                           panels + i * width);
    }
  }

  // c [queries, keys] = a [queries, C] keys^T, for whole panels of keys from k0 on.
  void AgainstKeys(const float* a, int64_t queries, const float* panels, int64_t k0, int64_t keys,
                   float* c) const {
    simd.product({.m = queries,
                  .n = RoundUp(keys, simd.panel),
                  .k = width,
                  .a = a,
                  .b = panels + k0 * width,
                  .b_panel = simd.panel * width,
                  .b_step = simd.panel,
                  .c = c,
                  .c_row = kAStride});
  }

  // c [queries, C] += a [queries, keys] rows [keys, C]
  void TimesRows(const float* a, int64_t queries, const float* rows, int64_t keys, float* c) const {
    simd.product({.m = queries,
                  .n = padded,
                  .k = keys,
                  .a = a,
                  .b = rows,
                  .b_panel = simd.panel,
                  .b_step = padded,
                  .c = c,
                  .c_row = padded,
                  .accumulate = true});
  }

  // c [keys, C] += a [queries, keys]^T b [queries, C]
  void TransposedTimesBlock(const float* a, int64_t queries, const float* b, int64_t keys,
                            float* c) const {
    simd.product({.m = keys,
                  .n = padded,
                  .k = queries,
                  .a = a,
                  .a_transposed = true,
                  .b = b,
                  .b_panel = simd.panel,
                  .b_step = kAStride,
                  .c = c,
                  .c_row = padded,
                  .accumulate = true});
  }
};

// One sequence, as its queries see it.
class Sequence {
 public:
  Sequence(const Tensor& document_ids, int64_t first, int64_t S)
      : first_token(first), length(S), first_seen_(static_cast<size_t>(S), 0) {
    if (!document_ids.defined()) return;
    const int32_t* id = document_ids.data<int32_t>() + first;
    for (int64_t i = 1; i < S; ++i) first_seen_[i] = id[i] == id[i - 1] ? first_seen_[i - 1] : i;
    for (int64_t i = 0; i < S; ++i) {
      if (id[i] < 0) first_seen_[i] = i + 1;
    }
  }

  // The first position that position q sees; q + 1 for padding.
  int64_t first_seen(int64_t q) const { return first_seen_[q]; }
  // ... that any of q0 .. q1 sees.
  int64_t first_seen(int64_t q0, int64_t q1) const {
    return *std::min_element(first_seen_.begin() + q0, first_seen_.begin() + q1);
  }

  const int64_t first_token, length;

 private:
  std::vector<int64_t> first_seen_;
};

// Which of a block's keys, k0 .. k0 + num_keys, a query sees, and that range in whole panels.
struct Seen {
  int64_t begin, end, whole_begin, whole_end;

  Seen(const Sequence& sequence, int64_t q, int64_t k0, int64_t num_keys, int64_t panel)
      : begin(std::max<int64_t>(sequence.first_seen(q) - k0, 0)),
        end(std::min(q + 1 - k0, num_keys)),
        whole_begin(begin / panel * panel),
        whole_end(RoundUp(end, panel)) {}

  bool none() const { return begin >= end; }
  int64_t whole() const { return whole_end - whole_begin; }

  // -infinity in what is not seen of the whole panels.
  void Mask(float* row) const {
    std::fill(row + whole_begin, row + begin, -INFINITY);
    std::fill(row + end, row + whole_end, -INFINITY);
  }
  // Zero outside the whole panels.
  void Clear(float* row, int64_t width) const {
    if (none()) {
      std::fill_n(row, width, 0.0f);
    } else {
      std::fill_n(row, whole_begin, 0.0f);
      std::fill(row + std::min(whole_end, width), row + width, 0.0f);
    }
  }
};

// What both directions share: one sequence and key/value head g, for which ForBlocks walks over the
// blocks of queries q0 .. q1 of each query head h, and over the blocks of keys that they see.
template <class Args>
class HeadTask {
 protected:
  HeadTask(const Args& args, const HeadProducts& products, int64_t task)
      : args_(args),
        products_(products),
        simd_(products.simd),
        shape_(args.shape),
        g_(task % shape_.num_kv_heads),
        scale_(1 / std::sqrt(static_cast<float>(shape_.head_dim))),
        sequence_idx_(task / shape_.num_kv_heads),
        sequence_(args.document_ids, sequence_idx_ * shape_.sequence_length,
                  shape_.sequence_length) {}

  template <class Begin, class AddKeys, class End>
  void ForBlocks(const Begin& begin, const AddKeys& add_keys, const End& end) {
    const int64_t group = shape_.num_heads / shape_.num_kv_heads;
    const kernels::QueryChunks chunks = shape_.query_chunks();
    for (h_ = g_ * group; h_ < (g_ + 1) * group; ++h_) {
      for (int i = 0; i < chunks.num_chunks; ++i) {
        const int64_t first = chunks.begin[i], last = first + chunks.length;
        row_of_position_0_ =
            sequence_idx_ * shape_.queries_per_sequence() + i * chunks.length - first;
        for (q0_ = first; q0_ < last; q0_ = q1_) {
          q1_ = std::min(q0_ + kQueryBlock, last);
          begin();
          ForKeyBlocks(add_keys);
          end();
        }
      }
    }
  }

  // Rows by position: of keys and values, and of the queries of the current chunk.
  Head KeyHead(const Tensor& x) const {
    return Head(x, sequence_.first_token, g_, shape_.head_dim, simd_);
  }
  Head QueryHead(const Tensor& x) const {
    return Head(x, row_of_position_0_, h_, shape_.head_dim, simd_);
  }

  // The block's queries over sqrt(C).
  void ReadQueries(float* to) const {
    const Head head = QueryHead(args_.q);
    for (int64_t s = q0_; s < q1_; ++s, to += kAStride) {
      head.Read(s, products_.padded, to);
      simd_.scale_row(to, shape_.head_dim, scale_);
    }
  }

  float& LogSumExp(int64_t s) const {
    return args_.logsumexp.template data<float>()[(row_of_position_0_ + s) * shape_.num_heads + h_];
  }

  const Args& args_;
  const HeadProducts& products_;
  const SimdKernels& simd_;
  const AttentionShape& shape_;
  const int64_t g_;
  const float scale_;
  const int64_t sequence_idx_;
  const Sequence sequence_;
  int64_t h_ = 0, q0_ = 0, q1_ = 0;
  int64_t row_of_position_0_ = 0;  // of queries, were the current chunk continued down to there

 private:
  template <class AddKeys>
  void ForKeyBlocks(const AddKeys& add_keys) {
    const int64_t first = sequence_.first_seen(q0_, q1_) / simd_.panel * simd_.panel;
    for (int64_t k0 = first; k0 < q1_; k0 += kKeyBlock) {
      add_keys(k0, std::min(kKeyBlock, q1_ - k0));
    }
  }
};

}  // namespace moebius::cpu
