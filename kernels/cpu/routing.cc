#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rows.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 32;       // tokens of a task
constexpr int64_t kTopKGrain = 256;  // ... of the choice of experts

// Calls fn(t, first, last) for every token t with the range of its pairs, in parallel over tokens.
template <class Fn>
void ForTokens(const RoutingPlan& plan, Context& ctx, const Fn& fn) {
  const int32_t* offsets = plan.token_offsets.data<int32_t>();
  ForRange(ctx, plan.num_tokens(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) fn(t, offsets[t], offsets[t + 1]);
  });
}

// The `k` best of score + bias, best first. A later expert enters only if it is better: ties go to
// the lower one. A score that is no number is the worst.
void ChooseBestOfToken(const float* scores, const float* bias, int64_t E, int64_t k, float* best,
                       int32_t* experts) {
  int64_t count = 0;
  for (int64_t e = 0; e < E; ++e) {
    const float sum = scores[e] + (bias != nullptr ? bias[e] : 0.0f);
    const float score = std::isnan(sum) ? -std::numeric_limits<float>::infinity() : sum;
    if (count == k && !(score > best[k - 1])) continue;
    int64_t place = count < k ? count++ : k - 1;
    for (; place > 0 && score > best[place - 1]; --place) {
      best[place] = best[place - 1];
      experts[place] = experts[place - 1];
    }
    best[place] = score;
    experts[place] = static_cast<int32_t>(e);
  }
}

// Of consecutive tokens.
void ChooseBest(const float* scores, const float* bias, int64_t tokens, int64_t E, int64_t k,
                int32_t* experts) {
  if (k <= kMaxTopK) return Simd().scores.top_k(scores, bias, tokens, E, k, experts);
  std::vector<float> best(k);
  for (int64_t t = 0; t < tokens; ++t) {
    ChooseBestOfToken(scores + t * E, bias, E, k, best.data(), experts + t * k);
  }
}

// y[t] = sum over pairs p of weights[p] * rows[row[p]]; null weights: ones.
void SumRows(const Tensor& rows, const float* weights, const RoutingPlan& plan, const Tensor& y,
             bool accumulate, Context& ctx) {
  const int64_t D = y.shape()[1];
  const Write write = WriteOf(y, D, accumulate);
  const int32_t *row = plan.row.data<int32_t>(), *offsets = plan.token_offsets.data<int32_t>();
  WithRows(y.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, plan.num_tokens(), kGrain, [&](int64_t begin, int64_t end) {
      const int64_t first = offsets[begin];
      std::vector<const T*> at(offsets[end] - first);
      for (size_t i = 0; i < at.size(); ++i) at[i] = At<T>(rows, row[first + i] * D);
      for (int64_t t = begin; t < end; ++t) {
        const int64_t p = offsets[t], next = offsets[t + 1];
        const int64_t after = t + 1 < end ? offsets[t + 2] : next;
        for (int64_t i = next; i < after; ++i) FetchStart(at[i - first]);
        kernels.sum_rows({.rows = at.data() + (p - first),
                          .weights = weights == nullptr ? nullptr : weights + p,
                          .count = next - p,
                          .y = At<T>(y, t * D),
                          .write = write},
                         D);
      }
    });
  });
}

}  // namespace

void ChooseTopK(const kernels::TopKArgs& args, const Tensor& experts, Context& ctx) {
  const auto [T, E] = Dims<2>(args.scores);
  const int32_t* ids = args.document_ids.defined() ? args.document_ids.data<int32_t>() : nullptr;
  std::vector<int64_t> valid;  // tokens that are not padding
  for (int64_t t = 0; ids != nullptr && t < T; ++t)
    if (ids[t] >= 0) valid.push_back(t);
  const auto token = [&](int64_t i) { return ids == nullptr ? i : valid[i]; };

  const float* bias = args.bias.defined() ? args.bias.data<float>() : nullptr;
  const int64_t num_tokens = ids == nullptr ? T : std::ssize(valid);
  ctx.pool().ForRange(num_tokens, kTopKGrain, [&, E = E](int64_t begin, int64_t end) {
    // By runs of tokens without padding between them.
    for (int64_t next; begin < end; begin = next) {
      next = begin + 1;
      while (next < end && token(next) == token(next - 1) + 1) ++next;
      ChooseBest(args.scores.data<float>() + token(begin) * E, bias, next - begin, E, args.k,
                 experts.data<int32_t>() + begin * args.k);
    }
  });
}

void PairWeights(const kernels::PairWeightsArgs& args, Context& ctx) {
  const int64_t E = args.plan.num_experts();
  const int32_t* expert = args.plan.expert.data<int32_t>();
  float* weights = args.weights.data<float>();
  ForTokens(args.plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
    const float* scores = args.scores.data<float>() + t * E;
    float sum = 1e-20f;
    for (int64_t p = first; p < last; ++p) sum += scores[expert[p]];
    const float factor = static_cast<float>(args.scale) / (args.renormalize ? sum : 1.0f);
    for (int64_t p = first; p < last; ++p) weights[p] = scores[expert[p]] * factor;
  });
}

void PairWeightsGradient(const kernels::PairWeightsGradientArgs& args, Context& ctx) {
  const int64_t E = args.plan.num_experts();
  const int32_t* expert = args.plan.expert.data<int32_t>();
  const float* dweights = args.dweights.data<float>();
  ForTokens(args.plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
    const float* scores = args.scores.data<float>() + t * E;
    float* dscores = args.dscores.data<float>() + t * E;
    if (!args.accumulate) std::fill_n(dscores, E, 0.0f);
    float sum = 1e-20f, inner = 0;
    for (int64_t p = first; p < last; ++p) {
      sum += scores[expert[p]];
      inner += dweights[p] * scores[expert[p]];
    }
    const float factor = static_cast<float>(args.scale) / (args.renormalize ? sum : 1.0f);
    const float mean = args.renormalize ? inner / sum : 0.0f;
    for (int64_t p = first; p < last; ++p) dscores[expert[p]] += factor * (dweights[p] - mean);
  });
}

void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx) {
  const int64_t D = x.shape()[1];
  const int32_t* row = plan.row.data<int32_t>();
  const Write write = WriteOf(rows, D);
  WithRows(x.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForTokens(plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p)
        kernels.copy(At<T>(x, t * D), At<T>(rows, row[p] * D), write, D);
    });
  });
}

void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx) {
  SumRows(args.drows, nullptr, args.plan, args.dx, args.accumulate, ctx);
}

void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx) {
  SumRows(rows, weights.data<float>(), plan, y, false, ctx);
}

void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx) {
  const int64_t D = args.dy.shape()[1], P = args.plan.num_pairs();
  const int32_t* row = args.plan.row.data<int32_t>();
  const Write write_drows = WriteOf(args.drows, D, args.accumulate_drows);
  WithRows(args.dy.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForTokens(args.plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        if (p + 1 < P) FetchStart(At<T>(args.rows, row[p + 1] * D));
        const float dweight = kernels.weigh_gradient({.dy = At<T>(args.dy, t * D),
                                                      .x = At<T>(args.rows, row[p] * D),
                                                      .weight = args.weights.data<float>()[p],
                                                      .dx = At<T>(args.drows, row[p] * D),
                                                      .write_dx = write_drows},
                                                     D);
        Put(args.dweights.data<float>()[p], dweight, args.accumulate_dweights);
      }
    });
  });
}

}  // namespace moebius::cpu
