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
        q_rows(cut.Take(head.RowsSize(kQueryBlock))),
        dy_rows(cut.Take(head.RowsSize(kQueryBlock))),
        p(cut.Take(kBlock)),
        ds(cut.Take(kBlock)),
        along(cut.Take(kBlock)),
        across(cut.Take(kBlock)),
        size(cut.size()) {}

  float *const keys_t, *const values_t, *const keys;         // of the sequence
  float *const dq, *const delta;                             // of a query head
  float *const q, *const dy, *const q_rows, *const dy_rows;  // of a block of queries
  float *const p, *const ds, *const along, *const across;    // and of keys
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
    const int64_t S = sequence_.length;
    products_.Transpose(KeyHead(args_.k), S, buffers_.p, buffers_.keys_t);
    products_.Transpose(KeyHead(args_.v), S, buffers_.p, buffers_.values_t);
    KeyHead(args_.k).Across(0, S, products_.padded, buffers_.keys);
    std::fill_n(dk_, S * products_.padded, 0.0f);
    std::fill_n(dv_, S * products_.padded, 0.0f);
    ForQueryHeads([this, S](const std::vector<QueryBlock>& blocks) {
      Begin(blocks);
      for (int64_t k0 = 0; k0 < S; k0 += kKeyBlock) AddKeys(blocks, k0);
      WriteQueries(blocks);
    });
  }

 private:
  void Begin(const std::vector<QueryBlock>& blocks) {
    const Head y = QueryHead(args_.y), dy = QueryHead(args_.dy);
    float *const y_row = buffers_.q, *const dy_row = buffers_.dy, *delta = buffers_.delta;
    std::fill_n(y_row, products_.padded, 0.0f);
    std::fill_n(dy_row, products_.padded, 0.0f);
    for (const QueryBlock& block : blocks) {
      for (int64_t i = 0; i < block.size(); ++i) {
        y.Read(block.row + i, y_row);
        dy.Read(block.row + i, dy_row);
        delta[i] = simd_.dot(y_row, dy_row, products_.padded);
      }
      delta += kQueryBlock;
    }
    std::fill_n(buffers_.dq, std::ssize(blocks) * kQueryBlock * products_.padded, 0.0f);
  }

  // Of the keys from k0 on, all queries.
  void AddKeys(const std::vector<QueryBlock>& blocks, int64_t k0) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const int64_t begin = std::max(k0, blocks[i].first_key);
      const int64_t end = std::min(k0 + kKeyBlock, blocks[i].end);
      const int64_t at = static_cast<int64_t>(i) * kQueryBlock;
      if (begin < end) AddBlock(blocks[i], at, begin, end - begin);
    }
  }

  // Of one block of queries; delta and dq from index `at` on are its own.
  void AddBlock(const QueryBlock& block, int64_t at, int64_t k0, int64_t num_keys) {
    const int64_t queries = block.size(), padded = products_.padded;
    const Head q = QueryHead(args_.q), dy = QueryHead(args_.dy);
    q.Along(block.row, queries, buffers_.q);
    dy.Along(block.row, queries, buffers_.dy);
    products_.AgainstKeys(buffers_.q, queries, buffers_.keys_t, k0, num_keys, buffers_.p);
    products_.AgainstKeys(buffers_.dy, queries, buffers_.values_t, k0, num_keys, buffers_.ds);
    GradientOfScores(block, buffers_.delta + at, k0, num_keys);

    const float* ds = products_.Along(buffers_.ds, queries, num_keys, buffers_.along);
    products_.TimesRows(ds, queries, buffers_.keys, k0, num_keys, buffers_.dq + at * padded);
    q.Across(block.row, queries, padded, buffers_.q_rows);
    ds = products_.Across(ds, queries, num_keys, buffers_.across);
    products_.TransposedTimesRows(ds, num_keys, buffers_.q_rows, queries, dk_ + k0 * padded);

    const float* p = products_.Along(buffers_.p, queries, num_keys, buffers_.along);
    dy.Across(block.row, queries, padded, buffers_.dy_rows);
    p = products_.Across(p, queries, num_keys, buffers_.across);
    products_.TransposedTimesRows(p, num_keys, buffers_.dy_rows, queries, dv_ + k0 * padded);
  }

  // Scores to weights in `p`, gradients of weights to gradients of scores in `ds`.
  void GradientOfScores(const QueryBlock& block, const float* delta, int64_t k0, int64_t num_keys) {
    for (int64_t i = 0; i < block.size(); ++i) {
      float *const p = buffers_.p + i * kAStride, *const ds = buffers_.ds + i * kAStride;
      const Seen seen(sequence_, block.begin + i, k0, num_keys, simd_.panel);
      seen.Clear(p);
      seen.Clear(ds);
      if (seen.none()) continue;
      seen.Mask(p);
      const int64_t begin = seen.whole_begin;
      simd_.exp_row(p + begin, seen.whole(), scale_, LogSumExp(block.row + i));
      simd_.softmax_gradient_row(p + begin, ds + begin, seen.whole(), delta[i]);
    }
  }

  void WriteQueries(const std::vector<QueryBlock>& blocks) {
    const Head head = QueryHead(args_.dq);
    float* block_dq = buffers_.dq;
    for (const QueryBlock& block : blocks) {
      for (int64_t i = 0; i < block.size(); ++i) {
        float* dq = block_dq + i * products_.padded;
        simd_.scale_row(dq, products_.width, scale_);
        head.Write(block.row + i, dq, args_.accumulate_q, buffers_.q);
      }
      block_dq += kQueryBlock * products_.padded;
    }
  }

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

// Writes dk and dv of `rows`, from the sums of their head's parts. `scratch` has room for two rows.
void WriteKeys(const kernels::AttentionGradientArgs& args, const HeadProducts& products,
               const KeyRows& rows, const float* sums, int64_t parts, float* scratch) {
  const AttentionShape& shape = args.shape;
  const int64_t S = shape.sequence_length, G = shape.num_kv_heads, padded = products.padded;
  const int64_t part_size = Backward::KeySums(products, S);
  float *const row = scratch, *const old = scratch + padded;
  const auto write = [&](const Tensor& x, const float* sums, float scale, bool accumulate) {
    const Head head(x, rows.head / G * S, rows.head % G, shape.head_dim, products.units);
    for (int64_t s = rows.begin; s < rows.end; ++s) {
      std::copy_n(sums + s * padded, padded, row);
      for (int64_t i = 1; i < parts; ++i) {
        const float* more = sums + i * part_size + s * padded;
        for (int64_t c = 0; c < padded; ++c) row[c] += more[c];
      }
      products.units.simd.scale_row(row, padded, scale);
      head.Write(s, row, accumulate, old);
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
  ForWithScratch(context, heads * slices, 2 * products.padded, "attention.scratch", add_up);
}

}  // namespace moebius::cpu
