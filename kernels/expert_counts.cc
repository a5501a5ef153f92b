#include "kernels/expert_counts.h"

#include <algorithm>
#include <numeric>

namespace moebius::kernels {
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

}  // namespace

void ExpertCounts(const ExpertCountsArgs& args, Context& ctx) {
  const auto [groups, E] = Dims<2>(args.counts);
  const int64_t T = args.plan.num_tokens();
  CHECK_EQ(E, args.plan.num_experts());
  CHECK_GE(args.tokens_per_group, 1);
  CHECK_GE(groups * args.tokens_per_group, T);
  const OpScope op = ctx.Start(Moves("expert_counts", args.plan.expert));
  if (op.is_dry()) return;

  if (!args.accumulate) std::ranges::fill(args.counts.span<double>(), 0.0);
  const int32_t* offsets = args.plan.token_offsets.data<int32_t>();
  const int32_t* expert = args.plan.expert.data<int32_t>();
  for (int64_t t = 0; t < T; ++t) {
    double* row = args.counts.data<double>() + t / args.tokens_per_group * E;
    for (int32_t p = offsets[t]; p < offsets[t + 1]; ++p) row[expert[p]] += 1;
  }
}

void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx) {
  CHECK(counts.shape() == fractions.shape()) << counts.shape() << " vs " << fractions.shape();
  const OpScope op = ctx.Start(Moves("expert_fractions", counts, fractions));
  if (op.is_dry()) return;
  if (fractions.dtype() == DType::kF64) {
    FractionsOf<double>(counts, fractions);
  } else {
    FractionsOf<float>(counts, fractions);
  }
}

}  // namespace moebius::kernels
