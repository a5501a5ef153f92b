#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 32;  // tokens of a task

// Calls fn(t, first, last) for every token t with the range of its pairs, in parallel over tokens.
template <class Fn>
void ForTokens(const RoutingPlan& plan, Context& ctx, const Fn& fn) {
  const int32_t* offsets = plan.token_offsets.data<int32_t>();
  ctx.pool().ForRange(plan.num_tokens(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) fn(t, offsets[t], offsets[t + 1]);
  });
}

// y = alpha x, or y += alpha x.
template <class From, class To>
MOEBIUS_CLONES void ScaleRow(float alpha, const From* x, To* y, bool accumulate, int64_t D) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) Put(y[d], alpha * Get(x[d]), accumulate);
}

template <class T>
MOEBIUS_CLONES float Dot(const T* a, const T* b, int64_t D) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) sum += Get(a[d]) * Get(b[d]);
  return sum;
}

// The `k` best of score + bias, best first. A later expert enters only if it is better: ties go to
// the lower one.
void ChooseBest(const float* scores, const float* bias, int64_t E, int64_t k, float* best,
                int32_t* experts) {
  int64_t count = 0;
  for (int64_t e = 0; e < E; ++e) {
    const float score = scores[e] + (bias != nullptr ? bias[e] : 0.0f);
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

// y[t] = sum over pairs of weight(p) * rows[row[p]], added up in fp32.
template <class T, class Weight>
void SumRows(const Tensor& rows, const RoutingPlan& plan, const Tensor& y, bool accumulate,
             const Weight& weight, Context& ctx) {
  const int64_t D = y.shape()[1];
  const int32_t* row = plan.row.data<int32_t>();
  ctx.pool().ForRange(plan.num_tokens(), kGrain, [&](int64_t begin, int64_t end) {
    const int32_t* offsets = plan.token_offsets.data<int32_t>();
    std::vector<float> sum(D);
    for (int64_t t = begin; t < end; ++t) {
      std::ranges::fill(sum, 0.0f);
      for (int64_t p = offsets[t]; p < offsets[t + 1]; ++p)
        ScaleRow(weight(p), rows.data<T>() + row[p] * D, sum.data(), true, D);
      ScaleRow(1.0f, sum.data(), y.data<T>() + t * D, accumulate, D);
    }
  });
}

}  // namespace

void ChooseTopK(const kernels::TopKArgs& args, const Tensor& experts, Context& ctx) {
  const auto [T, E] = Dims<2>(args.scores);
  const int32_t* ids = args.document_ids.defined() ? args.document_ids.data<int32_t>() : nullptr;
  std::vector<int64_t> valid;  // tokens that are not padding
  for (int64_t t = 0; t < T; ++t)
    if (ids == nullptr || ids[t] >= 0) valid.push_back(t);

  const float* bias = args.bias.defined() ? args.bias.data<float>() : nullptr;
  ctx.pool().ForRange(std::ssize(valid), kGrain, [&, E = E](int64_t begin, int64_t end) {
    std::vector<float> best(args.k);
    for (int64_t i = begin; i < end; ++i)
      ChooseBest(args.scores.data<float>() + valid[i] * E, bias, E, args.k, best.data(),
                 experts.data<int32_t>() + i * args.k);
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
  WithType(x.dtype(), [&](auto zero) {
    using Element = decltype(zero);
    ForTokens(plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p)
        std::copy_n(x.data<Element>() + t * D, D, rows.data<Element>() + row[p] * D);
    });
  });
}

void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx) {
  WithType(args.dx.dtype(), [&](auto zero) {
    SumRows<decltype(zero)>(
        args.drows, args.plan, args.dx, args.accumulate, [](int64_t) { return 1.0f; }, ctx);
  });
}

void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx) {
  WithType(rows.dtype(), [&](auto zero) {
    const float* w = weights.data<float>();
    SumRows<decltype(zero)>(
        rows, plan, y, false, [&](int64_t p) { return w[p]; }, ctx);
  });
}

void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx) {
  const int64_t D = args.dy.shape()[1];
  const int32_t* row = args.plan.row.data<int32_t>();
  WithType(args.dy.dtype(), [&](auto zero) {
    using Element = decltype(zero);
    ForTokens(args.plan, ctx, [&](int64_t t, int64_t first, int64_t last) {
      const Element* dy = args.dy.data<Element>() + t * D;
      for (int64_t p = first; p < last; ++p) {
        ScaleRow(args.weights.data<float>()[p], dy, args.drows.data<Element>() + row[p] * D,
                 args.accumulate_drows, D);
        Put(args.dweights.data<float>()[p], Dot(args.rows.data<Element>() + row[p] * D, dy, D),
            args.accumulate_dweights);
      }
    });
  });
}

void WeighRowsGradient(const kernels::WeighRowsGradientArgs& args, Context& ctx) {
  const auto [R, D] = Dims<2>(args.x);
  WithType(args.x.dtype(), [&, R = R, D = D](auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(R, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Element *x = args.x.data<Element>() + r * D, *dy = args.dy.data<Element>() + r * D;
        const float weight = args.weights.data<float>()[r];
        args.dweights.data<float>()[r] = Dot(x, dy, D);
        ScaleRow(weight, dy, args.dx.data<Element>() + r * D, args.accumulate_dx, D);
        ScaleRow(weight, x, args.weighted.data<Element>() + r * D, false, D);  // it may be dy
      }
    });
  });
}

}  // namespace moebius::cpu
