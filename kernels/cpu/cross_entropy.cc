#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 4;  // rows of a task

MOEBIUS_CLONES float LogSumExp(const float* x, int64_t n) {
  float max = x[0];
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += Exp(x[i] - max);
  return max + std::log(sum);
}

// dx = weight * exp(x - log_sum). dx may be x.
template <class T>
MOEBIUS_CLONES void WeightedSoftmax(const float* x, float log_sum, float weight, T* dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(dx[i], weight * Exp(x[i] - log_sum));
}

template <class T>
void LogitGradient(const float* logits, float log_sum, float weight, int32_t label, T* dlogits,
                   int64_t V) {
  const float at_label = weight * (Exp(logits[label] - log_sum) - 1.0f);
  WeightedSoftmax(logits, log_sum, weight, dlogits, V);
  Put(dlogits[label], at_label);
}

void Row(const kernels::CrossEntropyArgs& args, int64_t r, int64_t V) {
  const float* logits = args.logits.data<float>() + r * V;
  const float weight = args.weights.data<float>()[r];
  const int32_t label = weight == 0 ? 0 : args.labels.data<int32_t>()[r];
  const float log_sum = weight == 0 ? 0 : LogSumExp(logits, V);
  args.nll.data<double>()[r] =
      weight == 0 ? 0 : static_cast<double>(weight) * (log_sum - logits[label]);
  if (!args.dlogits.defined()) return;
  WithType(args.dlogits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dlogits = args.dlogits.data<T>() + r * V;
    if (weight == 0) {
      std::fill_n(dlogits, V, T{});
    } else {
      LogitGradient(logits, log_sum, weight, label, dlogits, V);
    }
  });
}

}  // namespace

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, kGrain, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) Row(args, r, V);
  });
}

}  // namespace moebius::cpu
