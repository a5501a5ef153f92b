#include "kernels/cpu/attention.h"

#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

struct Buffers {
  Buffers(const HeadProducts& head, int64_t S, Cutter cut)
      : keys(cut.Take(head.PanelsSize(S))),
        values(cut.Take(head.RowsSize(S))),
        q(cut.Take(kBlock)),
        p(cut.Take(kBlock)),
        p_units(cut.Take(kBlock)),
        y(cut.Take(kQueryBlock * head.padded)),
        size(cut.size()) {}

  float *const keys, *const values;                    // of the sequence
  float *const q, *const p, *const p_units, *const y;  // of a block of queries
  const int64_t size;
};

class Forward : HeadTask<kernels::AttentionArgs> {
 public:
  Forward(const kernels::AttentionArgs& args, const HeadProducts& products, int64_t head,
          const Part& part, float* scratch)
      : HeadTask(args, products, head, part),
        buffers_(products, sequence_.length, Cutter(scratch)) {}

  void Run() {
    ForQueryHeads([this](const std::vector<QueryBlock>& blocks) {
      q_ = QueryHead(args_.q);
      y_ = QueryHead(args_.y);
      q_.Fetch(blocks[0].row, blocks[0].size());
      for (size_t i = 0; i < blocks.size(); ++i) {
        next_ = i + 1 < blocks.size() ? &blocks[i + 1] : nullptr;
        Attend(blocks[i]);
      }
    });
  }

 private:
  void Attend(const QueryBlock& block) {
    MakeOperands(block);
    std::fill_n(max_, kQueryBlock, -INFINITY);
    std::fill_n(sum_, kQueryBlock, 0.0f);
    std::fill_n(buffers_.y, block.size() * products_.padded, 0.0f);
    for (int64_t k0 = block.first_key; k0 < block.end; k0 += kKeyBlock) {
      AddKeys(block, block.Against(k0, std::min(kKeyBlock, block.end - k0)));
    }
    Write(block);
  }

  void MakeOperands(const QueryBlock& block) {
    q_.Along(block.row, block.size(), buffers_.q);
    ForNewPanels(block.end, [this](int64_t begin, int64_t rows) {
      k_.Transpose(begin, rows, buffers_.p, buffers_.keys + begin * products_.depth);
      v_.Across(begin, rows, products_.padded, buffers_.values + products_.RowsAt(begin));
    });
  }

  void AddKeys(const QueryBlock& block, const ScoreBlock& scores) {
    const auto& [keys, values, q, p, p_units, y, size] = buffers_;
    products_.AgainstKeys(q, scores, keys, p);
    Mask(block, scores);
    Weigh(block, scores);
    products_.TimesRows(products_.Along(p, scores, p_units), scores, values, y);
  }

  // Leaves the scores of what is seen, and finds the largest of each row.
  void Mask(const QueryBlock& block, const ScoreBlock& scores) {
    for (int64_t i = 0; i < block.size(); ++i) {
      if (scores.k0 == block.first_key) FetchAhead(block, i);
      float* row = buffers_.p + i * kAStride;
      const Seen seen(sequence_, block.begin + i, scores, simd_.panel);
      seen.Clear(row);
      if (seen.none()) continue;
      seen.Mask(row);
      largest_[i] = scale_ * simd_.scores.max(row + seen.whole_begin, seen.whole());
    }
  }

  // One step of the online softmax: exp(score - the largest so far). Apart from Mask, so that a
  // row's exponentials wait for no maximum.
  void Weigh(const QueryBlock& block, const ScoreBlock& scores) {
    for (int64_t i = 0; i < block.size(); ++i) {
      const Seen seen(sequence_, block.begin + i, scores, simd_.panel);
      if (seen.none()) continue;
      const float old_max = max_[i];
      max_[i] = old_max > largest_[i] ? old_max : largest_[i];
      if (sum_[i] != 0 && max_[i] != old_max) {
        const float shrink = std::exp(old_max - max_[i]);
        sum_[i] *= shrink;
        simd_.scale_row(buffers_.y + i * products_.padded, products_.width, shrink);
      }
      float* row = buffers_.p + i * kAStride + seen.whole_begin;
      sum_[i] += simd_.exp_row(row, seen.whole(), scale_, max_[i]);
    }
  }

  // Begins to bring near row i of what the end of this block and the next block need.
  void FetchAhead(const QueryBlock& block, int64_t i) const {
    y_.Fetch(block.row + i);
    if (next_ == nullptr || i >= next_->size()) return;
    q_.Fetch(next_->row + i);
    FetchNewKey(i, next_->end);
  }

  void Write(const QueryBlock& block) {
    for (int64_t i = 0; i < block.size(); ++i) {
      const bool padding = sum_[i] == 0;
      y_.Write(block.row + i, buffers_.y + i * products_.padded, padding ? 0 : 1 / sum_[i], false);
      LogSumExp(block.row + i) = padding ? 0 : max_[i] + std::log(sum_[i]);
    }
  }

  Head q_ = QueryHead(args_.q), y_ = QueryHead(args_.y);
  const QueryBlock* next_ = nullptr;
  const Buffers buffers_;
  // By query of a block: of its scores so far, and of the last ones alone.
  float max_[kQueryBlock], sum_[kQueryBlock], largest_[kQueryBlock];
};

}  // namespace

void Attention(const kernels::AttentionArgs& args, Context& context, const SimdKernels& simd) {
  const AttentionShape& shape = args.shape;
  const HeadProducts products(shape, args.q.dtype(), simd);
  const int64_t heads = shape.num_sequences * shape.num_kv_heads;
  // A row's bits do not depend on the parts: as many as the threads can use.
  const int64_t enough = CeilDiv(2 * context.pool().num_threads(), std::max<int64_t>(heads, 1));
  const int64_t parts = std::clamp<int64_t>(NumBlocks(shape), 1, enough);
  const int64_t size = Buffers(products, shape.sequence_length, Cutter(nullptr)).size;
  ForWithScratch(context, heads * parts, size, "attention.scratch", [&](int64_t i, float* scratch) {
    Forward(args, products, i / parts, {i % parts, parts}, scratch).Run();
  });
}

}  // namespace moebius::cpu
