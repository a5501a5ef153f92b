// How many pairs each expert has, and their shares.
#pragma once

#include "core/tensor/context.h"
#include "kernels/routing_plan.h"

namespace moebius::kernels {

// counts[g, e] (+)= pairs of expert e among the tokens of group g = token / tokens_per_group.
// counts [groups, E] F64; tokens_per_group >= 1; groups * tokens_per_group >= the plan's tokens.
struct ExpertCountsArgs {
  const RoutingPlan& plan;
  int64_t tokens_per_group;
  Tensor counts;
  bool accumulate;  // counts is added to
};
void ExpertCounts(const ExpertCountsArgs& args, Context& ctx);

// fractions[g, e] = counts[g, e] / sum of counts[g, :]; 1 / E where nothing was counted.
// counts [groups, E] F64; fractions [groups, E] F64 | F32.
void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx);

// What a step's counts [E] F64 mean for the next one: they are remembered, and a bias on the choice
// of experts follows them (Wang et al., 2024, arXiv 2408.15664): bias += rate * sign(mean - count).
// Nothing happens where `state` says that the step updates nothing.
struct FollowCountsArgs {
  Tensor counts;
  Tensor state;        // [StepState::kSize] F64
  Tensor last_counts;  // [E] F64
  Tensor bias = {};    // [E] F64 | F32, or undefined
  double rate = 0;
};
void FollowCounts(const FollowCountsArgs& args, Context& ctx);

}  // namespace moebius::kernels
