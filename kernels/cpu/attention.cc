#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

using kernels::AttentionShape;

constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = kMaxDepth;
constexpr int64_t kBlock = kQueryBlock * kAStride;  // floats of a block of rows

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The first position that each position of a sequence sees; itself plus one for padding.
std::vector<int64_t> FirstSeen(const Tensor& document_ids, int64_t first, int64_t S) {
  std::vector<int64_t> seen(static_cast<size_t>(S), 0);
  if (!document_ids.defined()) return seen;
  const int32_t* id = document_ids.data<int32_t>() + first;
  for (int64_t i = 1; i < S; ++i) seen[i] = id[i] == id[i - 1] ? seen[i - 1] : i;
  for (int64_t i = 0; i < S; ++i) {
    if (id[i] < 0) seen[i] = i + 1;
  }
  return seen;
}

// One head of a tensor [T, heads * C].
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

  // c [queries, C] (+)= a [queries, keys] rows [keys, C]
  void TimesRows(const float* a, int64_t queries, const float* rows, int64_t keys, float* c,
                 bool accumulate) const {
    simd.product({.m = queries,
                  .n = padded,
                  .k = keys,
                  .a = a,
                  .b = rows,
                  .b_panel = simd.panel,
                  .b_step = padded,
                  .c = c,
                  .c_row = padded,
                  .accumulate = accumulate});
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

// The keys of a block, k0 .. k0 + keys, that query q sees.
struct Seen {
  int64_t begin, end;              // within the block
  int64_t whole_begin, whole_end;  // in whole panels

  Seen(int64_t first, int64_t q, int64_t k0, int64_t keys, int64_t panel)
      : begin(std::max<int64_t>(first - k0, 0)),
        end(std::min(q + 1 - k0, keys)),
        whole_begin(begin / panel * panel),
        whole_end(RoundUp(end, panel)) {}
  bool none() const { return begin >= end; }

  // Leaves `value` in what is not seen of the whole panels.
  void Mask(float* row, float value) const {
    std::fill(row + whole_begin, row + begin, value);
    std::fill(row + end, row + whole_end, value);
  }
  // Leaves zero in all but the whole panels.
  void Clear(float* row, int64_t width) const {
    if (none()) {
      std::fill_n(row, width, 0.0f);
    } else {
      std::fill(row, row + whole_begin, 0.0f);
      std::fill(row + std::min(whole_end, width), row + width, 0.0f);
    }
  }
};

}  // namespace

void Attention(const kernels::AttentionArgs& args, Context& context, const SimdKernels& simd) {
  const auto& [B, S, H, G, C] = args.shape;
  const HeadProducts head = {simd, C, RoundUp(C, simd.panel)};
  const float scale = 1 / std::sqrt(static_cast<float>(C));
  const int64_t rows = S * head.padded, panels = head.Panels(S);
  const int64_t scratch = panels + rows + 2 * kBlock + kQueryBlock * head.padded;
  const auto attend = [&, S = S, H = H, G = G, C = C](int64_t i, float* memory) {
    const int64_t first = i / G * S, g = i % G;
    float *const keys = memory, *const values = keys + panels;
    float *const q = values + rows, *const p = q + kBlock, *const sums = p + kBlock;
    const std::vector<int64_t> first_seen = FirstSeen(args.document_ids, first, S);
    const Head k_head(args.k, first, g, C, simd), v_head(args.v, first, g, C, simd);
    for (int64_t s = 0; s < S; ++s) k_head.Read(s, head.padded, values + s * head.padded);
    head.Transpose(values, S, keys);
    for (int64_t s = 0; s < S; ++s) v_head.Read(s, head.padded, values + s * head.padded);

    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h) {
      const Head q_head(args.q, first, h, C, simd), y_head(args.y, first, h, C, simd);
      for (int64_t q0 = 0; q0 < S; q0 += kQueryBlock) {
        const int64_t q1 = std::min(q0 + kQueryBlock, S), queries = q1 - q0;
        for (int64_t s = q0; s < q1; ++s) {
          float* row = q + (s - q0) * kAStride;
          q_head.Read(s, head.padded, row);
          simd.scale_row(row, C, scale);
        }
        float max[kQueryBlock], sum[kQueryBlock] = {};
        std::fill_n(max, kQueryBlock, -INFINITY);
        std::fill_n(sums, queries * head.padded, 0.0f);
        const int64_t nearest = *std::min_element(&first_seen[q0], &first_seen[q0] + queries);
        for (int64_t k0 = nearest / simd.panel * simd.panel; k0 < q1; k0 += kKeyBlock) {
          const int64_t num_keys = std::min(kKeyBlock, q1 - k0);
          head.AgainstKeys(q, queries, keys, k0, num_keys, p);
          for (int64_t s = q0; s < q1; ++s) {
            float* row = p + (s - q0) * kAStride;
            const Seen seen(first_seen[s], s, k0, num_keys, simd.panel);
            seen.Clear(row, num_keys);
            if (seen.none()) continue;
            seen.Mask(row, -INFINITY);
            const float shrink =
                simd.softmax_row(row + seen.whole_begin, seen.whole_end - seen.whole_begin,
                                 &max[s - q0], &sum[s - q0]);
            if (shrink != 1) simd.scale_row(sums + (s - q0) * head.padded, C, shrink);
          }
          head.TimesRows(p, queries, values + k0 * head.padded, num_keys, sums, true);
        }
        for (int64_t s = q0; s < q1; ++s) {
          const float total = sum[s - q0];
          float* row = sums + (s - q0) * head.padded;
          simd.scale_row(row, C, total > 0 ? 1 / total : 0);
          y_head.Write(s, row, false, nullptr);
          args.logsumexp.data<float>()[(first + s) * H + h] =
              total > 0 ? max[s - q0] + std::log(total) : 0;
        }
      }
    }
  };
  ForWithScratch(context, B * G, scratch, "attention.scratch", attend);
}

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context,
                       const SimdKernels& simd) {
  const auto& [B, S, H, G, C] = args.shape;
  const HeadProducts head = {simd, C, RoundUp(C, simd.panel)};
  const float scale = 1 / std::sqrt(static_cast<float>(C));
  const int64_t rows = S * head.padded, panels = head.Panels(S);
  const int64_t scratch = 2 * panels + 3 * rows + 4 * kBlock + (kQueryBlock + 1) * head.padded;
  const auto attend = [&, S = S, H = H, G = G, C = C](int64_t i, float* memory) {
    const int64_t first = i / G * S, g = i % G;
    float *const keys_t = memory, *const values_t = keys_t + panels;
    float *const keys = values_t + panels, *const dk = keys + rows, *const dv = dk + rows;
    float *const q = dv + rows, *const dy = q + kBlock, *const p = dy + kBlock;
    float *const ds = p + kBlock, *const dq = ds + kBlock;
    float* const spare = dq + kQueryBlock * head.padded;
    const std::vector<int64_t> first_seen = FirstSeen(args.document_ids, first, S);
    const Head k_head(args.k, first, g, C, simd), v_head(args.v, first, g, C, simd);
    for (int64_t s = 0; s < S; ++s) v_head.Read(s, head.padded, keys + s * head.padded);
    head.Transpose(keys, S, values_t);
    for (int64_t s = 0; s < S; ++s) k_head.Read(s, head.padded, keys + s * head.padded);
    head.Transpose(keys, S, keys_t);
    std::fill_n(dk, rows, 0.0f);
    std::fill_n(dv, rows, 0.0f);

    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h) {
      const Head q_head(args.q, first, h, C, simd), y_head(args.y, first, h, C, simd);
      const Head dy_head(args.dy, first, h, C, simd), dq_head(args.dq, first, h, C, simd);
      for (int64_t q0 = 0; q0 < S; q0 += kQueryBlock) {
        const int64_t q1 = std::min(q0 + kQueryBlock, S), queries = q1 - q0;
        float delta[kQueryBlock];
        for (int64_t s = q0; s < q1; ++s) {
          float *q_row = q + (s - q0) * kAStride, *dy_row = dy + (s - q0) * kAStride;
          q_head.Read(s, head.padded, q_row);
          simd.scale_row(q_row, C, scale);
          dy_head.Read(s, head.padded, dy_row);
          y_head.Read(s, head.padded, spare);
          delta[s - q0] = simd.dot(dy_row, spare, head.padded);
        }
        std::fill_n(dq, queries * head.padded, 0.0f);
        const int64_t nearest = *std::min_element(&first_seen[q0], &first_seen[q0] + queries);
        for (int64_t k0 = nearest / simd.panel * simd.panel; k0 < q1; k0 += kKeyBlock) {
          const int64_t num_keys = std::min(kKeyBlock, q1 - k0);
          head.AgainstKeys(q, queries, keys_t, k0, num_keys, p);
          head.AgainstKeys(dy, queries, values_t, k0, num_keys, ds);
          for (int64_t s = q0; s < q1; ++s) {
            float *p_row = p + (s - q0) * kAStride, *ds_row = ds + (s - q0) * kAStride;
            const Seen seen(first_seen[s], s, k0, num_keys, simd.panel);
            seen.Clear(p_row, num_keys);
            seen.Clear(ds_row, num_keys);
            if (seen.none()) continue;
            const int64_t at = seen.whole_begin, n = seen.whole_end - at;
            seen.Mask(p_row, -INFINITY);
            simd.exp_row(p_row + at, n, args.logsumexp.data<float>()[(first + s) * H + h]);
            simd.softmax_gradient_row(p_row + at, ds_row + at, n, delta[s - q0]);
          }
          head.TimesRows(ds, queries, keys + k0 * head.padded, num_keys, dq, true);
          head.TransposedTimesBlock(ds, queries, q, num_keys, dk + k0 * head.padded);
          head.TransposedTimesBlock(p, queries, dy, num_keys, dv + k0 * head.padded);
        }
        for (int64_t s = q0; s < q1; ++s) {
          float* row = dq + (s - q0) * head.padded;
          simd.scale_row(row, C, scale);
          dq_head.Write(s, row, args.accumulate_q, spare);
        }
      }
    }
    const Head dk_head(args.dk, first, g, C, simd), dv_head(args.dv, first, g, C, simd);
    for (int64_t s = 0; s < S; ++s) {
      dk_head.Write(s, dk + s * head.padded, args.accumulate_k, spare);
      dv_head.Write(s, dv + s * head.padded, args.accumulate_v, spare);
    }
  };
  ForWithScratch(context, B * G, scratch, "attention.scratch", attend);
}

}  // namespace moebius::cpu
