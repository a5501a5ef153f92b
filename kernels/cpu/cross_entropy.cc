#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 4;  // rows of a task

struct Softmax {
  float max, sum;  // of exp(x - max)
  float log_sum() const { return max + std::log(sum); }
};

// Leaves exp(x - max) in e, unless that is null.
Softmax SoftmaxOf(const float* x, float* e, int64_t n) {
  const ScoreKernels& scores = Simd().scores;
  const float max = scores.max(x, n);
  return {max, scores.exp_sum(x, max, e, n)};
}

// Where exp(x - shift) of row r is kept until its gradient is known: in the gradient, or in
// scratch if that is narrower, or nowhere.
float* Exponentials(const Tensor& dlogits, int64_t r, int64_t V, float* scratch) {
  if (!dlogits.defined()) return nullptr;
  return dlogits.dtype() == DType::kF32 ? dlogits.data<float>() + r * V : scratch;
}

// dlogits = factor * e, less `weight` at the label, which may lie outside of these columns. Zeros
// if weight is 0; undefined `dlogits` are skipped.
void WriteGradient(const Tensor& dlogits, int64_t r, const float* e, float factor, float weight,
                   int64_t label) {
  if (!dlogits.defined()) return;
  const int64_t V = dlogits.shape()[1];
  WithRows(dlogits.dtype(), [&](const auto& rows, auto zero) {
    using T = decltype(zero);
    T* row = At<T>(dlogits, r * V);
    if (weight == 0) return (void)std::fill_n(row, V, T{});
    const bool has_label = 0 <= label && label < V;
    const float at_label = has_label ? factor * e[label] - weight : 0;
    rows.scale(e, factor, row, Write::kReplace, V);
    if (has_label) rows.scale(&at_label, 1.0f, row + label, Write::kReplace, 1);
  });
}

void Row(const kernels::CrossEntropyArgs& args, int64_t r, int64_t V, float* scratch) {
  const float* logits = args.logits.data<float>() + r * V;
  const float weight = args.weights.data<float>()[r];
  double& nll = args.nll.data<double>()[r];
  if (weight == 0) {
    nll = 0;
    return WriteGradient(args.dlogits, r, nullptr, 0, 0, 0);
  }
  const int32_t label = args.labels.data<int32_t>()[r];
  const float at_label = logits[label];  // dlogits may be logits
  float* e = Exponentials(args.dlogits, r, V, scratch);
  const Softmax softmax = SoftmaxOf(logits, e, V);
  nll = static_cast<double>(weight) * (softmax.log_sum() - at_label);
  WriteGradient(args.dlogits, r, e, weight / softmax.sum, weight, label);
}

void StatisticsRow(const kernels::CrossEntropyStatisticsArgs& args, int64_t r, int64_t V) {
  const float* logits = args.logits.data<float>() + r * V;
  const int64_t label = args.labels.data<int32_t>()[r] - args.first;
  const bool has_label = args.weights.data<float>()[r] != 0 && 0 <= label && label < V;
  const Softmax softmax = SoftmaxOf(logits, nullptr, V);
  double* out = args.statistics.data<double>() + r * 3;
  out[0] = softmax.max, out[1] = softmax.sum, out[2] = has_label ? logits[label] : 0;
}

void PartRow(const kernels::CrossEntropyOfPartArgs& args, int64_t r, int64_t V, float* scratch) {
  const float weight = args.weights.data<float>()[r];
  const double* whole = args.statistics.data<double>() + r * 3;
  args.nll.data<double>()[r] =
      weight == 0 ? 0 : weight * (whole[0] + std::log(whole[1]) - whole[2]);
  float* e = Exponentials(args.dlogits, r, V, scratch);
  if (e == nullptr) return;
  if (weight == 0) return WriteGradient(args.dlogits, r, e, 0, 0, 0);
  Simd().scores.exp_sum(args.logits.data<float>() + r * V, static_cast<float>(whole[0]), e, V);
  WriteGradient(args.dlogits, r, e, static_cast<float>(weight / whole[1]), weight,
                args.labels.data<int32_t>()[r] - args.first);
}

// Calls fn(r, scratch) for rows of V logits.
template <class Fn>
void ForRows(const Tensor& logits, const Tensor& dlogits, Context& ctx, const Fn& fn) {
  const auto [R, V] = Dims<2>(logits);
  const bool narrow = dlogits.defined() && dlogits.dtype() != DType::kF32;
  ForWithScratch(ctx, (R + kGrain - 1) / kGrain, narrow ? V : 0, "cross_entropy.row",
                 [&, R = R](int64_t i, float* scratch) {
                   const int64_t end = std::min(R, (i + 1) * kGrain);
                   for (int64_t r = i * kGrain; r < end; ++r) fn(r, scratch);
                 });
}

}  // namespace

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx) {
  const int64_t V = args.logits.shape()[1];
  ForRows(args.logits, args.dlogits, ctx,
          [&](int64_t r, float* scratch) { Row(args, r, V, scratch); });
}

void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  ctx.pool().ForRange(R, kGrain, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) StatisticsRow(args, r, V);
  });
}

void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx) {
  const int64_t V = args.logits.shape()[1];
  ForRows(args.logits, args.dlogits, ctx,
          [&](int64_t r, float* scratch) { PartRow(args, r, V, scratch); });
}

}  // namespace moebius::cpu
