// What is exact, or kept in double, whatever the dtype of its operands: on the CPU there is no
// other implementation.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

template <class T>
void FractionsOf(const Tensor& counts, const Tensor& fractions) {
  const auto [groups, E] = Dims<2>(counts);
  for (int64_t g = 0; g < groups; ++g) {
    const double* c = counts.data<double>() + g * E;
    T* f = fractions.data<T>() + g * E;
    const double sum = std::accumulate(c, c + E, 0.0);
    for (int64_t e = 0; e < E; ++e) {
      f[e] = static_cast<T>(sum > 0 ? c[e] / sum : 1.0 / static_cast<double>(E));
    }
  }
}

template <class To>
void Convert(const Tensor& w, const Tensor& image, Context& context) {
  constexpr int64_t kGrain = 1 << 15;
  context.pool().ForRange(w.size(), kGrain, [&](int64_t begin, int64_t end) {
    const auto convert = [&](const auto* from) {
      To* to = image.data<To>();
      for (int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(static_cast<float>(from[i]));
    };
    w.dtype() == DType::kF64 ? convert(w.data<double>()) : convert(w.data<float>());
  });
}

template <class T>
void FollowLoad(const kernels::FollowCountsArgs& args) {
  const auto counts = args.counts.span<double>();
  const auto bias = args.bias.span<T>();
  const double mean =
      std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  for (size_t i = 0; i < bias.size(); ++i) {
    const double error = mean - counts[i];
    bias[i] += static_cast<T>(args.rate * ((error > 0) - (error < 0)));
  }
}

bool IsPadding(const kernels::TopKArgs& args, int64_t t) {
  return args.document_ids.defined() && args.document_ids.data<int32_t>()[t] < 0;
}

}  // namespace

void ConvertWeight(const Tensor& w, WeightFormat, const Tensor& image, Context& ctx) {
  image.dtype() == DType::kBF16 ? Convert<BF16>(w, image, ctx) : Convert<float>(w, image, ctx);
}

void CombineStatistics(const Tensor& parts, const Tensor& whole, Context&) {
  const auto [n, R, three] = Dims<3>(parts);
  for (int64_t r = 0; r < R; ++r) {
    const auto part = [&, R = R](int64_t i) { return parts.data<double>() + (i * R + r) * 3; };
    double max = part(0)[0], sum = 0, label = 0;
    for (int64_t i = 1; i < n; ++i) max = std::max(max, part(i)[0]);
    for (int64_t i = 0; i < n; ++i) {
      sum += part(i)[1] * std::exp(part(i)[0] - max);
      label += part(i)[2];
    }
    double* out = whole.data<double>() + r * 3;
    out[0] = max, out[1] = sum, out[2] = label;
  }
}

void OffsetsOfK(const kernels::TopKArgs& args, const Tensor& token_offsets, Context&) {
  int32_t* const offsets = token_offsets.data<int32_t>();
  int32_t next = 0;
  for (int64_t t = 0; t < args.scores.shape()[0]; ++t) {
    offsets[t] = next;
    next += IsPadding(args, t) ? 0 : static_cast<int32_t>(args.k);
  }
  offsets[args.scores.shape()[0]] = next;
}

void BuildPlan(const RoutingPlan& plan, Context&) {
  const auto experts = plan.expert.span<int32_t>(), offsets = plan.expert_offsets.span<int32_t>();
  CHECK_EQ(plan.token_offsets.span<int32_t>().back(), plan.num_pairs())
      << "pairs beyond the last token";
  std::ranges::fill(offsets, 0);
  for (const int32_t expert : experts) {
    CHECK(0 <= expert && expert < plan.num_experts()) << "expert " << expert;
    ++offsets[expert + 1];
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::vector<int32_t> next(offsets.begin(), offsets.end());
  std::ranges::transform(experts, plan.row.data<int32_t>(),
                         [&](int32_t expert) { return next[expert]++; });
}

void RowTokens(const RoutingPlan& plan, const Tensor& tokens, Context&) {
  const auto offsets = plan.token_offsets.span<int32_t>();
  const int32_t* row = plan.row.data<int32_t>();
  for (int32_t t = 0; t < plan.num_tokens(); ++t) {
    for (int32_t p = offsets[t]; p < offsets[t + 1]; ++p) tokens.data<int32_t>()[row[p]] = t;
  }
}

void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context&) {
  const auto set = [&]<class T>(const T* from, T* to) {
    for (int64_t p = 0; p < plan.num_pairs(); ++p) to[plan.row.data<int32_t>()[p]] = from[p];
  };
  y.dtype() == DType::kF64 ? set(weights.data<double>(), y.data<double>())
                           : set(weights.data<float>(), y.data<float>());
}

void WeightsByRowGradient(const kernels::WeightsByRowGradientArgs& args, Context&) {
  const auto set = [&]<class T>(const T* from, T* to) {
    for (int64_t p = 0; p < args.plan.num_pairs(); ++p) {
      to[p] = (args.accumulate ? to[p] : 0) + from[args.plan.row.data<int32_t>()[p]];
    }
  };
  args.dy.dtype() == DType::kF64 ? set(args.dy.data<double>(), args.dweights.data<double>())
                                 : set(args.dy.data<float>(), args.dweights.data<float>());
}

void ExpertCounts(const kernels::ExpertCountsArgs& args, Context&) {
  const int64_t T = args.plan.num_tokens(), E = args.plan.num_experts();
  if (!args.accumulate) std::ranges::fill(args.counts.span<double>(), 0.0);
  const int32_t* offsets = args.plan.token_offsets.data<int32_t>();
  const int32_t* expert = args.plan.expert.data<int32_t>();
  for (int64_t t = 0; t < T; ++t) {
    double* row = args.counts.data<double>() + t / args.tokens_per_group * E;
    for (int32_t p = offsets[t]; p < offsets[t + 1]; ++p) row[expert[p]] += 1;
  }
}

void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context&) {
  if (fractions.dtype() == DType::kF64) {
    FractionsOf<double>(counts, fractions);
  } else {
    FractionsOf<float>(counts, fractions);
  }
}

void Sum(const kernels::SumArgs& args, Context&) {
  double total = 0;
  for (const double x : args.x.span<double>()) total += x;
  double& sum = args.sum.data<double>()[0];
  sum = args.accumulate ? sum + total : total;
}

void DecideUpdate(const kernels::DecideUpdateArgs& args, Context&) {
  double* const state = args.state.data<double>();
  const double loss = args.loss.data<double>()[0];
  const double norm = std::sqrt(args.squares.data<double>()[0]);
  const bool clips = args.clip_norm > 0 && norm > args.clip_norm;
  state[StepState::kClipScale] = clips ? args.clip_norm / norm : 1.0;
  const bool overflows = args.overflow.defined() && args.overflow.data<double>()[0] != 0;
  state[StepState::kUpdates] = std::isfinite(loss) && std::isfinite(norm) && !overflows ? 1 : 0;
  state[StepState::kLoss] = loss;
  state[StepState::kGradientNorm] = norm;
}

void FollowCounts(const kernels::FollowCountsArgs& args, Context&) {
  if (args.state.data<double>()[StepState::kUpdates] == 0) return;
  std::ranges::copy(args.counts.span<double>(), args.last_counts.data<double>());
  if (!args.bias.defined()) return;
  if (args.bias.dtype() == DType::kF64) {
    FollowLoad<double>(args);
  } else {
    FollowLoad<float>(args);
  }
}

}  // namespace moebius::reference
