// How attention walks, forward and backward: a sequence as its queries see it, and the blocks of
// queries of a task. For attention alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/attention_products.h"

namespace moebius::cpu {

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

// Which of a block's keys the query at position q sees, and that range in whole panels, whose
// width is a power of 2.
struct Seen {
  int64_t begin, end, whole_begin, whole_end, block_end;

  Seen(const Sequence& sequence, int64_t q, const ScoreBlock& block, int64_t panel)
      : begin(std::max<int64_t>(sequence.first_seen(q) - block.k0, 0)),
        end(std::min(q + 1 - block.k0, block.keys)),
        whole_begin(begin & -panel),
        whole_end((end + panel - 1) & -panel),
        block_end((block.keys + panel - 1) & -panel) {}

  bool none() const { return begin >= end; }
  int64_t whole() const { return whole_end - whole_begin; }

  // -infinity in what is not seen of the whole panels.
  void Mask(float* row) const {
    std::fill(row + whole_begin, row + begin, -INFINITY);
    std::fill(row + end, row + whole_end, -INFINITY);
  }
  // Zero in the other panels of the block.
  void Clear(float* row) const {
    std::fill_n(row, none() ? 0 : whole_begin, 0.0f);
    std::fill(row + (none() ? 0 : whole_end), row + block_end, 0.0f);
  }
};

// A block of consecutive positions that have queries.
struct QueryBlock {
  int64_t begin, end;  // positions
  int64_t row;         // of tensors of queries: that of `begin`
  int64_t first_key;   // the first panel of keys that any of them sees, not after `begin`

  int64_t size() const { return end - begin; }
  ScoreBlock Against(int64_t k0, int64_t keys) const { return {size(), k0, keys, begin + 1 - k0}; }
};

// Every `count`th block of the queries that share a key/value head, from the `idx`th on.
struct Part {
  int64_t idx = 0, count = 1;
};

// Blocks of the queries of a query head.
inline int64_t NumBlocks(const AttentionShape& shape) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  return chunks.num_chunks * CeilDiv(chunks.length, kQueryBlock);
}

inline float Scale(const AttentionShape& shape) {
  return 1 / std::sqrt(static_cast<float>(shape.head_dim));
}

// What both directions share: one sequence and key/value head, and a part of its queries.
template <class Args>
class HeadTask {
 protected:
  HeadTask(const Args& args, const HeadProducts& products, int64_t head, const Part& part)
      : args_(args),
        products_(products),
        simd_(products.units.simd),
        shape_(args.shape),
        g_(head % shape_.num_kv_heads),
        sequence_idx_(head / shape_.num_kv_heads),
        part_(part),
        scale_(Scale(shape_)),
        sequence_(args.document_ids, sequence_idx_ * shape_.sequence_length,
                  shape_.sequence_length),
        k_(KeyHead(args.k)),
        v_(KeyHead(args.v)),
        logsumexp_(args.logsumexp.template data<float>()) {}

  // Calls fn(blocks) for each query head h_ that shares the key/value head, with its blocks of
  // this part, unless there are none.
  template <class Fn>
  void ForQueryHeads(const Fn& fn) {
    const std::vector<QueryBlock> all = QueryBlocks();
    const int64_t group = shape_.num_heads / shape_.num_kv_heads;
    int64_t i = 0;
    for (h_ = g_ * group; h_ < (g_ + 1) * group; ++h_) {
      std::vector<QueryBlock> blocks;
      for (const QueryBlock& block : all) {
        if (i++ % part_.count == part_.idx) blocks.push_back(block);
      }
      if (!blocks.empty()) fn(blocks);
    }
  }

  // Calls fn(begin, rows) for each panel of keys and values before `end` that has not been given
  // yet.
  template <class Fn>
  void ForNewPanels(int64_t end, const Fn& fn) {
    const int64_t panel = simd_.panel, S = sequence_.length;
    if (next_key_ == 0) {
      for (int64_t i = 0; i < panel; ++i) FetchKey(i);
    }
    for (; next_key_ < end; next_key_ += panel) {
      const int64_t next = next_key_ + panel;
      for (int64_t i = next; i < std::min(next + panel, end); ++i) FetchKey(i);
      fn(next_key_, std::min(panel, S - next_key_));
    }
  }
  // Begins to bring near row i of what the block that ends before `end` will be the first to need.
  void FetchNewKey(int64_t i, int64_t end) const {
    if (next_key_ + i < end) FetchKey(next_key_ + i);
  }

  // Rows by position.
  Head KeyHead(const Tensor& x) const {
    return Head(x, sequence_.first_token, g_, shape_.head_dim, products_.units);
  }
  Head QueryHead(const Tensor& x) const { return Head(x, 0, h_, shape_.head_dim, products_.units); }

  // By row of tensors of queries.
  float& LogSumExp(int64_t row) const { return logsumexp_[row * shape_.num_heads + h_]; }

  const Args& args_;
  const HeadProducts& products_;
  const SimdKernels& simd_;
  const AttentionShape& shape_;
  const int64_t g_, sequence_idx_;
  const Part part_;
  const float scale_;
  const Sequence sequence_;
  const Head k_, v_;
  int64_t h_ = 0;

 private:
  void FetchKey(int64_t i) const {
    if (i >= sequence_.length) return;
    k_.Fetch(i);
    v_.Fetch(i);
  }

  std::vector<QueryBlock> QueryBlocks() const {
    const kernels::QueryChunks chunks = shape_.query_chunks();
    std::vector<QueryBlock> blocks;
    int64_t row = sequence_idx_ * shape_.queries_per_sequence();
    for (int i = 0; i < chunks.num_chunks; ++i) {
      const int64_t last = chunks.begin[i] + chunks.length;
      for (int64_t begin = chunks.begin[i]; begin < last; begin += kQueryBlock) {
        const int64_t end = std::min(begin + kQueryBlock, last);
        const int64_t first = std::min(sequence_.first_seen(begin, end), begin);
        blocks.push_back({begin, end, row, first / products_.panel() * products_.panel()});
        row += end - begin;
      }
    }
    return blocks;
  }

  float* const logsumexp_;
  int64_t next_key_ = 0;  // the first that ForNewPanels has not given
};

}  // namespace moebius::cpu
