#include "kernels/expert_counts.h"

#include "kernels/backend.h"

namespace moebius::kernels {

void ExpertCounts(const ExpertCountsArgs& args, Context& ctx) {
  const auto [groups, E] = Dims<2>(args.counts);
  const int64_t T = args.plan.num_tokens();
  CHECK_EQ(E, args.plan.num_experts());
  CHECK_GE(args.tokens_per_group, 1);
  CHECK_GE(groups * args.tokens_per_group, T);
  const OpScope op = ctx.Start(Moves("expert_counts", args.plan.expert));
  if (op.is_dry()) return;
  BackendFor(DType::kI32, ctx).expert_counts(args, ctx);
}

void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx) {
  CHECK(counts.shape() == fractions.shape()) << counts.shape() << " vs " << fractions.shape();
  const OpScope op = ctx.Start(Moves("expert_fractions", counts, fractions));
  if (op.is_dry()) return;
  BackendFor(fractions.dtype(), ctx).expert_fractions(counts, fractions, ctx);
}

void FollowCounts(const FollowCountsArgs& args, Context& ctx) {
  CHECK_EQ(args.counts.shape(), args.last_counts.shape());
  CHECK_EQ(args.state.shape(), (Shape{StepState::kSize}));
  if (args.bias.defined()) CHECK_EQ(args.bias.shape(), args.counts.shape());
  const OpScope op = ctx.Start(Moves("follow_counts", args.counts, args.last_counts));
  if (op.is_dry()) return;
  BackendFor(DType::kI32, ctx).follow_counts(args, ctx);
}

}  // namespace moebius::kernels
