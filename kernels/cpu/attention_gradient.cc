#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

struct Buffers {
  Buffers(const HeadProducts& head, int64_t S, int64_t blocks, Cutter cut)
      : keys_t(cut.Take(head.PanelsSize(S))),
        values_t(cut.Take(head.PanelsSize(S))),
        keys(cut.Take(head.RowsSize(S))),
        dq(cut.Take(blocks * kQueryBlock * head.padded)),
        delta(cut.Take(blocks * kQueryBlock)),
        q(cut.Take(kBlock)),
        dy(cut.Take(kBlock)),
        q_pairs(cut.Take(head.units.pairs ? kBlock / 2 : 0)),
        dy_pairs(cut.Take(head.units.pairs ? kBlock / 2 : 0)),
        p(cut.Take(kBlock)),
        ds(cut.Take(kBlock)),
        along(cut.Take(kBlock)),
        across(cut.Take(kBlock)),
        size(cut.size()) {}

  float *const keys_t, *const values_t, *const keys;           // of the sequence
  float *const dq, *const delta;                               // of a query head
  float *const q, *const dy, *const q_pairs, *const dy_pairs;  // of a block of queries
  float *const p, *const ds, *const along, *const across;      // and of keys
  const int64_t size;
};

class Backward : HeadTask<kernels::AttentionGradientArgs> {
 public:
  Backward(const kernels::AttentionGradientArgs& args, const HeadProducts& products, int64_t head,
           const Part& part, float* sums, const Buffers& buffers)
      : HeadTask(args, products, head, part),
        dk_(sums),
        dv_(sums + KeySums(products, sequence_.length) / 2),
        buffers_(buffers) {}

  // Floats of a part's sums: dk [S, padded], not yet scaled, then dv.
  static int64_t KeySums(const HeadProducts& products, int64_t S) {
    return 2 * S * products.padded;
  }

  void Run() {
    const int64_t S = sequence_.length, sums = KeySums(products_, S) / 2;
    std::fill_n(dk_, sums, 0.0f);
    std::fill_n(dv_, sums, 0.0f);
    ForQueryHeads([this, S](const std::vector<QueryBlock>& blocks) {
      q_ = QueryHead(args_.q);
      y_ = QueryHead(args_.y);
      dq_ = QueryHead(args_.dq);
      dy_ = QueryHead(args_.dy);
      for (int64_t i = 0; i < blocks[0].size(); ++i) FetchQuery(blocks[0].row + i, true);
      for (int64_t k0 = 0; k0 < S; k0 += kKeyBlock) AddKeys(blocks, k0);
    });
  }

 private:
  // Of the keys from k0 on, all queries.
  void AddKeys(const std::vector<QueryBlock>& blocks, int64_t k0) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const QueryBlock& block = blocks[i];
      const int64_t begin = std::max(k0, block.first_key),
                    end = std::min(k0 + kKeyBlock, block.end);
      if (begin >= end) continue;
      next_ = i + 1 < blocks.size() ? &blocks[i + 1] : nullptr;
      const int64_t at = static_cast<int64_t>(i) * kQueryBlock;
      if (begin == block.first_key) Begin(block, at);
      MakeOperands(block, end);
      AddBlock(block, at, block.Against(begin, end - begin));
      if (end == block.end) WriteQueries(block, at);
    }
  }

  // delta and dq of a block are at index `at`.
  void Begin(const QueryBlock& block, int64_t at) {
    float* const delta = buffers_.delta + at;
    for (int64_t i = 0; i < block.size(); ++i) delta[i] = y_.Dot(block.row + i, dy_);
    const int64_t padded = products_.padded;
    std::fill_n(buffers_.dq + at * padded, block.size() * padded, 0.0f);
  }

  void MakeOperands(const QueryBlock& block, int64_t last_key) {
    const int64_t queries = block.size();
    q_.Along(block.row, queries, buffers_.q);
    dy_.Along(block.row, queries, buffers_.dy);
    if (products_.units.pairs) {
      q_.Across(block.row, queries, kAStride, buffers_.q_pairs);
      dy_.Across(block.row, queries, kAStride, buffers_.dy_pairs);
    }
    ForNewPanels(last_key, [this](int64_t begin, int64_t rows) {
      k_.Transpose(begin, rows, buffers_.p, buffers_.keys_t + begin * products_.depth);
      v_.Transpose(begin, rows, buffers_.p, buffers_.values_t + begin * products_.depth);
      k_.Across(begin, rows, products_.padded, buffers_.keys + products_.RowsAt(begin));
    });
  }

  void AddBlock(const QueryBlock& block, int64_t at, const ScoreBlock& scores) {
    const auto& [keys_t, values_t, keys, dq, delta, q, dy, q_pairs, dy_pairs, p, ds, along, across,
                 size] = buffers_;
    const bool pairs = products_.units.pairs;
    products_.AgainstKeys(q, scores, keys_t, p);
    products_.AgainstKeys(dy, scores, values_t, ds);
    GradientOfScores(block, at, scores);

    const float* operand = products_.Along(ds, scores, along);
    products_.TimesRows(operand, scores, keys, dq + at * products_.padded);
    operand = products_.Across(operand, scores, across);
    products_.TransposedTimesRows(operand, scores, pairs ? q_pairs : q, dk_);

    operand = products_.Across(products_.Along(p, scores, along), scores, across);
    products_.TransposedTimesRows(operand, scores, pairs ? dy_pairs : dy, dv_);
  }

  // Scores to weights in `p`, gradients of weights to gradients of scores in `ds`.
  void GradientOfScores(const QueryBlock& block, int64_t at, const ScoreBlock& scores) {
    const float* const delta = buffers_.delta + at;
    for (int64_t i = 0; i < block.size(); ++i) {
      FetchAhead(block, i, scores);
      float *const p = buffers_.p + i * kAStride, *const ds = buffers_.ds + i * kAStride;
      const Seen seen(sequence_, block.begin + i, scores, simd_.panel);
      seen.Clear(p);
      seen.Clear(ds);
      if (seen.none()) continue;
      seen.Mask(p);
      const int64_t begin = seen.whole_begin;
      simd_.exp_row(p + begin, seen.whole(), scale_, LogSumExp(block.row + i));
      simd_.softmax_gradient_row(p + begin, ds + begin, seen.whole(), delta[i]);
    }
  }

  // Begins to bring near row i of what the end of this block and the next block need, of the same
  // keys.
  void FetchAhead(const QueryBlock& block, int64_t i, const ScoreBlock& scores) const {
    if (scores.k0 + scores.keys == block.end) dq_.Fetch(block.row + i);
    if (next_ == nullptr || i >= next_->size()) return;
    FetchQuery(next_->row + i, next_->first_key >= scores.k0);
    FetchNewKey(i, next_->end);
  }
  void FetchQuery(int64_t row, bool begins) const {
    q_.Fetch(row);
    dy_.Fetch(row);
    if (begins) y_.Fetch(row);
  }

  void WriteQueries(const QueryBlock& block, int64_t at) {
    const float* dq = buffers_.dq + at * products_.padded;
    for (int64_t i = 0; i < block.size(); ++i, dq += products_.padded) {
      dq_.Write(block.row + i, dq, scale_, args_.accumulate_q);
    }
  }

  Head q_ = QueryHead(args_.q), y_ = QueryHead(args_.y), dq_ = QueryHead(args_.dq),
       dy_ = QueryHead(args_.dy);
  const QueryBlock* next_ = nullptr;
  float *const dk_, *const dv_;
  const Buffers buffers_;
};

// Parts of the queries of each key/value head. Their sums are added in order, and bits depend on
// how many they are: a function of sizes alone.
int64_t NumParts(const AttentionShape& shape) {
  constexpr int64_t kEnoughTasks = 16, kFewestQueries = 2048;
  const int64_t heads = std::max<int64_t>(shape.num_sequences * shape.num_kv_heads, 1);
  const int64_t queries = shape.num_heads / shape.num_kv_heads * shape.queries_per_sequence();
  return std::clamp<int64_t>(queries / kFewestQueries, 1, CeilDiv(kEnoughTasks, heads));
}

// Rows of a key/value head.
struct KeyRows {
  int64_t head, begin, end;
};

// Writes dk and dv of `rows`, from the sums of their head's parts. `row` is scratch.
void WriteKeys(const kernels::AttentionGradientArgs& args, const HeadProducts& products,
               const KeyRows& rows, const float* sums, int64_t parts, float* row) {
  const AttentionShape& shape = args.shape;
  const int64_t S = shape.sequence_length, G = shape.num_kv_heads, padded = products.padded;
  const int64_t part_size = Backward::KeySums(products, S);
  const auto write = [&](const Tensor& x, const float* sums, float scale, bool accumulate) {
    constexpr int64_t kAhead = 16;
    const Head head(x, rows.head / G * S, rows.head % G, shape.head_dim, products.units);
    for (int64_t s = rows.begin; s < rows.end; ++s) {
      if (s + kAhead < rows.end) head.Fetch(s + kAhead);
      const float* sum = sums + s * padded;
      if (parts > 1) {
        std::copy_n(sum, padded, row);
        for (int64_t i = 1; i < parts; ++i) {
          for (int64_t c = 0; c < padded; ++c) row[c] += sum[i * part_size + c];
        }
        sum = row;
      }
      head.Write(s, sum, scale, accumulate);
    }
  };
  write(args.dk, sums, Scale(shape), args.accumulate_k);
  write(args.dv, sums + part_size / 2, 1, args.accumulate_v);
}

}  // namespace

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context,
                       const SimdKernels& simd) {
  const AttentionShape& shape = args.shape;
  const HeadProducts products(shape, args.q.dtype(), simd);
  const int64_t S = shape.sequence_length, heads = shape.num_sequences * shape.num_kv_heads;
  const int64_t parts = NumParts(shape), blocks = CeilDiv(NumBlocks(shape), parts);
  const int64_t num_sums = Backward::KeySums(products, S);
  // A head in parts has the sums of all of them in memory at once; a head in one, its thread's.
  const Tensor shared = context.Empty(DType::kF32, {parts > 1 ? heads * parts : 0, num_sums},
                                      "attention.key_gradients");
  const int64_t own = parts > 1 ? 0 : num_sums;
  const int64_t size = own + Buffers(products, S, blocks, Cutter(nullptr)).size;
  const auto run = [&](int64_t i, float* scratch) {
    float* const sums = parts > 1 ? shared.data<float>() + i * num_sums : scratch;
    const Buffers buffers(products, S, blocks, Cutter(scratch + own));
    Backward(args, products, i / parts, {i % parts, parts}, sums, buffers).Run();
    if (parts == 1) WriteKeys(args, products, {i, 0, S}, sums, 1, buffers.q);
  };
  ForWithScratch(context, heads * parts, size, "attention.scratch", run);
  if (parts == 1) return;
  const int64_t slices = CeilDiv(S, kKeyBlock);
  const auto add_up = [&](int64_t i, float* scratch) {
    const int64_t head = i / slices, begin = i % slices * kKeyBlock;
    WriteKeys(args, products, {head, begin, std::min(begin + kKeyBlock, S)},
              shared.data<float>() + head * parts * num_sums, parts, scratch);
  };
  ForWithScratch(context, heads * slices, products.padded, "attention.scratch", add_up);
}

}  // namespace moebius::cpu
