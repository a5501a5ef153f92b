// The bodies of ScoreKernels. Included by simd_inl.h.
#pragma once

#include "kernels/cpu/simd_rows_inl.h"

namespace moebius::cpu {
namespace {

// The best kK of a token in each lane, best first; what is not there yet is NaN.
template <int kWidth, int kK>
struct Best {
  using F = Float<kWidth>;
  using V = typename F::V;
  using I = typename F::I;

  // Behind what is as good. NaN gives way to all.
  [[gnu::always_inline]] void Insert(V score, I expert) {
#pragma GCC unroll 16
    for (int j = kK - 1; j > 0; --j) {
      const auto here = scores[j] >= score, before = scores[j - 1] >= score;
      scores[j] = here ? scores[j] : before ? score : scores[j - 1];
      experts[j] = here ? experts[j] : before ? expert : experts[j - 1];
    }
    const auto here = scores[0] >= score;
    scores[0] = here ? scores[0] : score;
    experts[0] = here ? experts[0] : expert;
  }

  V scores[kK];
  I experts[kK] = {};
};

// y[j, i] = rows[i, j] for kWidth rows, E units apart, and `columns` <= kWidth columns; rows from
// `tokens` on are anything.
template <int kWidth>
void TransposeScores(const float* rows, int64_t E, int64_t tokens, int64_t columns, float* y) {
  if (tokens >= kWidth && columns == kWidth) {
    return TransposeSquare<kWidth>(rows, E, y, kWidth);
  }
  const int64_t last = (tokens < kWidth ? tokens : kWidth) - 1;
  for (int64_t i = 0; i < kWidth; ++i) {
    const float* row = rows + (i < last ? i : last) * E;
    for (int64_t j = 0; j < columns; ++j) y[j * kWidth + i] = row[j];
  }
}

template <int kWidth, int kK>
void TopKOfTokens(const float* scores, const float* bias, int64_t tokens, int64_t E, int64_t k,
                  int32_t* experts) {
  using F = Float<kWidth>;
  float columns[kWidth * kWidth];
  int32_t chosen[kK][kWidth];
  for (; tokens > 0; tokens -= kWidth, scores += kWidth * E, experts += kWidth * k) {
    Best<kWidth, kK> best;
    for (int j = 0; j < kK; ++j) best.scores[j] = F::Set(__builtin_nanf(""));
    for (int64_t begin = 0; begin < E; begin += kWidth) {
      const int64_t end = begin + kWidth < E ? begin + kWidth : E;
      TransposeScores<kWidth>(scores + begin, E, tokens, end - begin, columns);
      for (int64_t e = begin; e < end; ++e) {
        __builtin_prefetch(scores + (E + e) * kWidth);  // a line of the next tokens
        const typename F::V score =
            F::Load(columns + (e - begin) * kWidth) + (bias != nullptr ? bias[e] : 0.0f);
        best.Insert(F::Max(score, F::Set(-__builtin_inff())),
                    static_cast<int32_t>(e) - typename F::I{});
      }
    }
    for (int j = 0; j < kK; ++j) __builtin_memcpy(chosen[j], &best.experts[j], sizeof chosen[j]);
    for (int64_t t = 0; t < kWidth && t < tokens; ++t) {
      for (int64_t j = 0; j < k; ++j) experts[t * k + j] = chosen[j][t];
    }
  }
}

template <int kWidth>
void TopK(const float* scores, const float* bias, int64_t tokens, int64_t E, int64_t k,
          int32_t* experts) {
  const auto of_tokens = k <= 2   ? TopKOfTokens<kWidth, 2>
                         : k <= 4 ? TopKOfTokens<kWidth, 4>
                         : k <= 8 ? TopKOfTokens<kWidth, 8>
                                  : TopKOfTokens<kWidth, kMaxTopK>;
  of_tokens(scores, bias, tokens, E, k, experts);
}

template <int kWidth>
ScoreKernels MakeScoreKernels() {
  using Bodies = RowBodies<float, kWidth, RoundBits>;
  return {.max = Bodies::Max, .exp_sum = Bodies::ExpSum, .top_k = TopK<kWidth>, .fence = Fence};
}

}  // namespace
}  // namespace moebius::cpu
