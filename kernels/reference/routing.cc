#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

// Calls fn(t, p, row) for every pair p of every token t, in parallel over tokens.
template <class Fn>
void ForPairs(const RoutingPlan& plan, Context& ctx, const Fn& fn) {
  ctx.pool().ForRange(plan.num_tokens(), 16, [&](int64_t begin, int64_t end) {
    const int32_t *offsets = plan.token_offsets.data<int32_t>(), *row = plan.row.data<int32_t>();
    for (int64_t t = begin; t < end; ++t)
      for (int64_t p = offsets[t]; p < offsets[t + 1]; ++p) fn(t, p, row[p]);
  });
}

// The sums of the chosen scores, by token.
std::vector<double> ChosenSums(const Tensor& scores, const RoutingPlan& plan, Context& ctx) {
  const int64_t E = plan.num_experts();
  std::vector<double> sums(plan.num_tokens(), 1e-20);
  ForPairs(plan, ctx, [&](int64_t t, int64_t p, int64_t) {
    sums[t] += scores.data<double>()[t * E + plan.expert.data<int32_t>()[p]];
  });
  return sums;
}

}  // namespace

void ChooseTopK(const kernels::TopKArgs& args, const Tensor& experts, Context&) {
  const auto [T, E] = Dims<2>(args.scores);
  int32_t* chosen = experts.data<int32_t>();
  for (int64_t t = 0; t < T; ++t) {
    if (args.document_ids.defined() && args.document_ids.data<int32_t>()[t] < 0) continue;
    const auto score = [&, E = E](int32_t e) {
      const double sum = args.scores.data<double>()[t * E + e] +
                         (args.bias.defined() ? args.bias.data<double>()[e] : 0);
      return std::isnan(sum) ? -std::numeric_limits<double>::infinity() : sum;
    };
    std::vector<int32_t> order(E);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return score(a) > score(b); });
    chosen = std::copy_n(order.begin(), args.k, chosen);
  }
}

void PairWeights(const kernels::PairWeightsArgs& args, Context& ctx) {
  const int64_t E = args.plan.num_experts();
  std::vector<double> sums;
  if (args.renormalize) sums = ChosenSums(args.scores, args.plan, ctx);
  ForPairs(args.plan, ctx, [&](int64_t t, int64_t p, int64_t) {
    const double score = args.scores.data<double>()[t * E + args.plan.expert.data<int32_t>()[p]];
    args.weights.data<double>()[p] = args.scale * score / (args.renormalize ? sums[t] : 1);
  });
}

void PairWeightsGradient(const kernels::PairWeightsGradientArgs& args, Context& ctx) {
  const int64_t T = args.plan.num_tokens(), E = args.plan.num_experts();
  const double *scores = args.scores.data<double>(), *dweights = args.dweights.data<double>();
  const int32_t* expert = args.plan.expert.data<int32_t>();
  double* dscores = args.dscores.data<double>();
  if (!args.accumulate) std::fill_n(dscores, args.dscores.size(), 0.0);

  std::vector<double> sums(T, 1), inner(T, 0);
  if (args.renormalize) {
    sums = ChosenSums(args.scores, args.plan, ctx);
    ForPairs(args.plan, ctx, [&](int64_t t, int64_t p, int64_t) {
      inner[t] += dweights[p] * scores[t * E + expert[p]] / sums[t];
    });
  }
  ForPairs(args.plan, ctx, [&](int64_t t, int64_t p, int64_t) {
    dscores[t * E + expert[p]] += args.scale * (dweights[p] - inner[t]) / sums[t];
  });
}

void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx) {
  const int64_t D = x.shape()[1];
  ForPairs(plan, ctx, [&](int64_t t, int64_t, int64_t row) {
    std::copy_n(x.data<double>() + t * D, D, rows.data<double>() + row * D);
  });
}

void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx) {
  const int64_t D = args.dx.shape()[1];
  if (!args.accumulate) std::fill_n(args.dx.data<double>(), args.dx.size(), 0.0);
  ForPairs(args.plan, ctx, [&](int64_t t, int64_t, int64_t row) {
    for (int64_t d = 0; d < D; ++d)
      args.dx.data<double>()[t * D + d] += args.drows.data<double>()[row * D + d];
  });
}

void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx) {
  const int64_t D = y.shape()[1];
  std::fill_n(y.data<double>(), y.size(), 0.0);
  ForPairs(plan, ctx, [&](int64_t t, int64_t p, int64_t row) {
    for (int64_t d = 0; d < D; ++d)
      y.data<double>()[t * D + d] += weights.data<double>()[p] * rows.data<double>()[row * D + d];
  });
}

void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx) {
  const int64_t D = args.dy.shape()[1];
  ForPairs(args.plan, ctx, [&](int64_t t, int64_t p, int64_t row) {
    const double* dy = args.dy.data<double>() + t * D;
    const double* rows = args.rows.data<double>() + row * D;
    double* drows = args.drows.data<double>() + row * D;
    double inner = 0;
    for (int64_t d = 0; d < D; ++d) {
      const double g = args.weights.data<double>()[p] * dy[d];
      drows[d] = args.accumulate_drows ? drows[d] + g : g;
      inner += rows[d] * dy[d];
    }
    double& dweight = args.dweights.data<double>()[p];
    dweight = args.accumulate_dweights ? dweight + inner : inner;
  });
}

}  // namespace moebius::reference
