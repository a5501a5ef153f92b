#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 4;  // rows of a task

struct Softmax {
  float max, sum;  // of exp(x - max)
  float log_sum() const { return max + std::log(sum); }
};

MOEBIUS_CLONES Softmax SoftmaxOf(const float* x, int64_t n) {
  float max = x[0];
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += Exp(x[i] - max);
  return {max, sum};
}

// dx = weight * exp(x - log_sum). dx may be x.
template <class T>
MOEBIUS_CLONES void WeightedSoftmax(const float* x, float log_sum, float weight, T* dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(dx[i], weight * Exp(x[i] - log_sum));
}

// `label` may lie outside of these columns.
template <class T>
void LogitGradient(const float* logits, float log_sum, float weight, int64_t label, T* dlogits,
                   int64_t V) {
  const bool has_label = 0 <= label && label < V;
  const float at_label = has_label ? weight * (Exp(logits[label] - log_sum) - 1.0f) : 0;
  WeightedSoftmax(logits, log_sum, weight, dlogits, V);
  if (has_label) Put(dlogits[label], at_label);
}

// Zeros for padding; undefined `dlogits` are skipped.
void WriteGradient(const Tensor& dlogits, int64_t r, const float* logits, float log_sum,
                   float weight, int64_t label, int64_t V) {
  if (!dlogits.defined()) return;
  WithType(dlogits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* row = dlogits.data<T>() + r * V;
    if (weight == 0) {
      std::fill_n(row, V, T{});
    } else {
      LogitGradient(logits, log_sum, weight, label, row, V);
    }
  });
}

void Row(const kernels::CrossEntropyArgs& args, int64_t r, int64_t V) {
  const float* logits = args.logits.data<float>() + r * V;
  const float weight = args.weights.data<float>()[r];
  const int32_t label = weight == 0 ? 0 : args.labels.data<int32_t>()[r];
  const float log_sum = weight == 0 ? 0 : SoftmaxOf(logits, V).log_sum();
  args.nll.data<double>()[r] =
      weight == 0 ? 0 : static_cast<double>(weight) * (log_sum - logits[label]);
  WriteGradient(args.dlogits, r, logits, log_sum, weight, label, V);
}

void StatisticsRow(const kernels::CrossEntropyStatisticsArgs& args, int64_t r, int64_t V) {
  const float* logits = args.logits.data<float>() + r * V;
  const int64_t label = args.labels.data<int32_t>()[r] - args.first;
  const bool has_label = args.weights.data<float>()[r] != 0 && 0 <= label && label < V;
  const Softmax softmax = SoftmaxOf(logits, V);
  double* out = args.statistics.data<double>() + r * 3;
  out[0] = softmax.max, out[1] = softmax.sum, out[2] = has_label ? logits[label] : 0;
}

void PartRow(const kernels::CrossEntropyOfPartArgs& args, int64_t r, int64_t V) {
  const float weight = args.weights.data<float>()[r];
  const double* whole = args.statistics.data<double>() + r * 3;
  const double log_sum = whole[0] + std::log(whole[1]);
  args.nll.data<double>()[r] = weight == 0 ? 0 : weight * (log_sum - whole[2]);
  WriteGradient(args.dlogits, r, args.logits.data<float>() + r * V, static_cast<float>(log_sum),
                weight, args.labels.data<int32_t>()[r] - args.first, V);
}

}  // namespace

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, kGrain, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) Row(args, r, V);
  });
}

void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, kGrain, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) StatisticsRow(args, r, V);
  });
}

void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, kGrain, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) PartRow(args, r, V);
  });
}

}  // namespace moebius::cpu
