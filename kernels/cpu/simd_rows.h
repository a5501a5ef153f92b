// Rows of the ops that move bytes: plain functions of rows that stand in memory one element after
// the other, for each instruction set. T is float, or the bits of bf16; everything is computed in
// float and rounded once. Any n. What an element becomes does not depend on where it stands.
// Included by simd.h, and as that without inline functions.
#pragma once

#include <cstdint>

namespace moebius::cpu {

// What becomes of a result: it takes the place of what is there, or is added to it, or goes past
// the caches. kStream needs rows that begin and end with whole cache lines, and `fence` before
// another thread may read them.
enum class Write { kReplace, kAdd, kStream };

template <class T>
struct SwiGluGradientRow {
  const T *gate, *up, *dh;
  T* dgate;
  Write write_dgate;
  T* dup;
  Write write_dup;
};

template <class T>
struct RmsNormGradientRow {
  const T *dy, *x;
  const float* w;
  float rstd, along_x;  // dx = rstd * (dy * w - x * along_x)
  T* dx;
  Write write;
};

// `heads` heads of 2 `half` elements: the pair (i, i + half) is turned by the angle of cos[i] and
// sin[i].
template <class T>
struct TurnRow {
  const T* x;
  const float *cos, *sin;
  T* y;
  Write write;
  int64_t heads, half;
};

// y = the sum of weights[i] * rows[i] over i < count; null weights: ones.
template <class T>
struct RowSum {
  const T* const* rows;
  const float* weights;
  int64_t count;
  T* y;
  Write write;
};

// Of h = silu(gate) * up by dh = weight * product; and h is left as weight * h.
template <class T>
struct WeightedSwiGluGradientRow {
  const T *gate, *up;
  const float* product;
  float weight;
  T *dgate, *dup, *h;
};

// dx = weight * dy
template <class T>
struct WeighRowGradient {
  const T *dy, *x;
  float weight;
  T* dx;
  Write write_dx;
};

template <class T>
struct RowKernels {
  // kernels/activations.h
  void (*swiglu)(const T* gate, const T* up, T* h, Write write, int64_t n);
  void (*swiglu_gradient)(const SwiGluGradientRow<T>& row, int64_t n);
  // Returns the sum of h * product.
  float (*weighted_swiglu_gradient)(const WeightedSwiGluGradientRow<T>& row, int64_t n);
  void (*softmax)(const T* z, T* p, int64_t rows, int64_t n);

  // kernels/rms_norm.h
  float (*dot)(const T* a, const T* b, int64_t n);
  float (*weighted_dot)(const T* a, const T* b, const float* w, int64_t n);  // sum of a * b * w
  void (*normalize)(const T* x, const float* w, float rstd, T* y, Write write, int64_t n);
  void (*normalize_gradient)(const RmsNormGradientRow<T>& row, int64_t n);
  void (*add_scaled_products)(const T* a, const T* b, float scale, float* sum, int64_t n);

  void (*turn)(const TurnRow<T>& row);  // kernels/rotary.h

  // kernels/routing.h
  void (*sum_rows)(const RowSum<T>& sum, int64_t n);
  float (*weigh_gradient)(const WeighRowGradient<T>& row, int64_t n);  // the sum of x * dy

  // kernels/cross_entropy.h, kernels/embedding.h
  void (*scale)(const float* x, float scale, T* y, Write write, int64_t n);  // y may be x
  void (*add)(const T* x, float* sum, Write write, int64_t n);
  void (*copy)(const T* x, T* y, Write write, int64_t n);
};

// What scores of rows need besides, and `fence`.
struct ScoreKernels {
  float (*max)(const float* x, int64_t n);  // n > 0
  // The sum of exp(x - shift), which is left in e unless that is null; x - shift is at most 88.
  float (*exp_sum)(const float* x, float shift, float* e, int64_t n);

  // experts[t, 0 .. k) are the best of scores[t] + bias, best first, ties to the lower; null bias:
  // zeros. NaN is as bad as -infinity. 1 <= k <= min(E, kMaxTopK).
  void (*top_k)(const float* scores, const float* bias, int64_t tokens, int64_t E, int64_t k,
                int32_t* experts);

  void (*fence)();
};
inline constexpr int64_t kMaxTopK = 16;

}  // namespace moebius::cpu
