#include "kernels/cpu/attention.h"

#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

class Forward : HeadTask<kernels::AttentionArgs> {
 public:
  static int64_t Scratch(const HeadProducts& head, int64_t S) {
    return head.Panels(S) + S * head.padded + 2 * kBlock + kQueryBlock * head.padded;
  }

  Forward(const kernels::AttentionArgs& args, const HeadProducts& head, int64_t task,
          float* scratch)
      : HeadTask(args, head, task),
        keys_(scratch),
        values_(keys_ + head.Panels(sequence_.length)),
        q_(values_ + sequence_.length * head.padded),
        p_(q_ + kBlock),
        y_(p_ + kBlock) {}

  void Run() {
    KeyHead(args_.k).ReadAll(sequence_.length, products_.padded, values_);
    products_.Transpose(values_, sequence_.length, keys_);
    KeyHead(args_.v).ReadAll(sequence_.length, products_.padded, values_);
    ForBlocks([this] { Begin(); }, [this](int64_t k0, int64_t n) { AddKeys(k0, n); },
              [this] { End(); });
  }

 private:
  void Begin() {
    ReadQueries(q_);
    std::fill_n(max_, kQueryBlock, -INFINITY);
    std::fill_n(sum_, kQueryBlock, 0.0f);
    std::fill_n(y_, (q1_ - q0_) * products_.padded, 0.0f);
  }

  void AddKeys(int64_t k0, int64_t num_keys) {
    products_.AgainstKeys(q_, q1_ - q0_, keys_, k0, num_keys, p_);
    for (int64_t i = 0; i < q1_ - q0_; ++i) {
      float* p = p_ + i * kAStride;
      const Seen seen(sequence_, q0_ + i, k0, num_keys, simd_.panel);
      seen.Clear(p, num_keys);
      if (seen.none()) continue;
      seen.Mask(p);
      const float shrink =
          simd_.softmax_row(p + seen.whole_begin, seen.whole(), &max_[i], &sum_[i]);
      if (shrink != 1) simd_.scale_row(y_ + i * products_.padded, products_.width, shrink);
    }
    products_.TimesRows(p_, q1_ - q0_, values_ + k0 * products_.padded, num_keys, y_);
  }

  void End() {
    const Head head = QueryHead(args_.y);
    for (int64_t i = 0; i < q1_ - q0_; ++i) {
      const bool padding = sum_[i] == 0;
      float* y = y_ + i * products_.padded;
      simd_.scale_row(y, products_.width, padding ? 0 : 1 / sum_[i]);
      head.Write(q0_ + i, y, false, nullptr);
      LogSumExp(q0_ + i) = padding ? 0 : max_[i] + std::log(sum_[i]);
    }
  }

  float *const keys_, *const values_;     // of the sequence: transposed, and as rows
  float *const q_, *const p_, *const y_;  // of a block of queries
  float max_[kQueryBlock], sum_[kQueryBlock];
};

class Backward : HeadTask<kernels::AttentionGradientArgs> {
 public:
  static int64_t Scratch(const HeadProducts& head, int64_t S) {
    return 2 * head.Panels(S) + 3 * S * head.padded + 4 * kBlock + (kQueryBlock + 1) * head.padded;
  }

  Backward(const kernels::AttentionGradientArgs& args, const HeadProducts& head, int64_t task,
           float* scratch)
      : HeadTask(args, head, task),
        keys_t_(scratch),
        values_t_(keys_t_ + head.Panels(sequence_.length)),
        keys_(values_t_ + head.Panels(sequence_.length)),
        dk_(keys_ + sequence_.length * head.padded),
        dv_(dk_ + sequence_.length * head.padded),
        q_(dv_ + sequence_.length * head.padded),
        dy_(q_ + kBlock),
        p_(dy_ + kBlock),
        ds_(p_ + kBlock),
        dq_(ds_ + kBlock),
        row_(dq_ + kQueryBlock * head.padded) {}

  void Run() {
    const int64_t S = sequence_.length, padded = products_.padded;
    KeyHead(args_.v).ReadAll(S, padded, keys_);
    products_.Transpose(keys_, S, values_t_);
    KeyHead(args_.k).ReadAll(S, padded, keys_);
    products_.Transpose(keys_, S, keys_t_);
    std::fill_n(dk_, S * padded, 0.0f);
    std::fill_n(dv_, S * padded, 0.0f);
    ForBlocks([this] { Begin(); }, [this](int64_t k0, int64_t n) { AddKeys(k0, n); },
              [this] { End(); });
    for (int64_t s = 0; s < S; ++s) {
      KeyHead(args_.dk).Write(s, dk_ + s * padded, args_.accumulate_k, row_);
      KeyHead(args_.dv).Write(s, dv_ + s * padded, args_.accumulate_v, row_);
    }
  }

 private:
  void Begin() {
    ReadQueries(q_);
    const Head y = QueryHead(args_.y), dy = QueryHead(args_.dy);
    for (int64_t i = 0; i < q1_ - q0_; ++i) {
      y.Read(q0_ + i, products_.padded, row_);
      dy.Read(q0_ + i, products_.padded, dy_ + i * kAStride);
      delta_[i] = simd_.dot(dy_ + i * kAStride, row_, products_.padded);
    }
    std::fill_n(dq_, (q1_ - q0_) * products_.padded, 0.0f);
  }

  void AddKeys(int64_t k0, int64_t num_keys) {
    const int64_t queries = q1_ - q0_, at = k0 * products_.padded;
    products_.AgainstKeys(q_, queries, keys_t_, k0, num_keys, p_);
    products_.AgainstKeys(dy_, queries, values_t_, k0, num_keys, ds_);
    for (int64_t i = 0; i < queries; ++i) {
      float *const p = p_ + i * kAStride, *const ds = ds_ + i * kAStride;
      const Seen seen(sequence_, q0_ + i, k0, num_keys, simd_.panel);
      seen.Clear(p, num_keys);
      seen.Clear(ds, num_keys);
      if (seen.none()) continue;
      seen.Mask(p);
      simd_.exp_row(p + seen.whole_begin, seen.whole(), LogSumExp(q0_ + i));
      simd_.softmax_gradient_row(p + seen.whole_begin, ds + seen.whole_begin, seen.whole(),
                                 delta_[i]);
    }
    products_.TimesRows(ds_, queries, keys_ + at, num_keys, dq_);
    products_.TransposedTimesBlock(ds_, queries, q_, num_keys, dk_ + at);
    products_.TransposedTimesBlock(p_, queries, dy_, num_keys, dv_ + at);
  }

  void End() {
    const Head head = QueryHead(args_.dq);
    for (int64_t i = 0; i < q1_ - q0_; ++i) {
      float* dq = dq_ + i * products_.padded;
      simd_.scale_row(dq, products_.width, scale_);
      head.Write(q0_ + i, dq, args_.accumulate_q, row_);
    }
  }

  float *const keys_t_, *const values_t_, *const keys_;  // of the sequence
  float *const dk_, *const dv_;
  float *const q_, *const dy_, *const p_, *const ds_, *const dq_;  // of a block of queries
  float* const row_;
  float delta_[kQueryBlock];
};

template <class Task, class Args>
void RunTasks(const Args& args, Context& context, const SimdKernels& simd) {
  const AttentionShape& shape = args.shape;
  const HeadProducts products = {simd, shape.head_dim, RoundUp(shape.head_dim, simd.panel)};
  ForWithScratch(context, shape.num_sequences * shape.num_kv_heads,
                 Task::Scratch(products, shape.sequence_length), "attention.scratch",
                 [&](int64_t i, float* scratch) { Task(args, products, i, scratch).Run(); });
}

}  // namespace

void Attention(const kernels::AttentionArgs& args, Context& context, const SimdKernels& simd) {
  RunTasks<Forward>(args, context, simd);
}

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context,
                       const SimdKernels& simd) {
  RunTasks<Backward>(args, context, simd);
}

}  // namespace moebius::cpu
