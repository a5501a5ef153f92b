// The one answer of every router: a ragged list of (token, expert) pairs, and the same pairs
// grouped by expert. Their weights [P] stand beside it. A token without an expert and an expert
// without a token are ordinary.
//
// Example, T = 3, E = 2: token 0 -> {1}, token 1 -> {}, token 2 -> {0, 1}
//   token_offsets = 0 1 1 3      expert = 1 0 1    pair order: by token
//   expert_offsets = 0 1 3       row = 1 0 2       pair p stands at row[p] of the grouped order
#pragma once

#include "core/tensor/context.h"

namespace moebius {

// int32, on the device.
struct RoutingPlan {
  Tensor token_offsets;   // [T + 1]
  Tensor expert;          // [P]
  Tensor expert_offsets;  // [E + 1]; the count of expert e is the difference of its neighbours
  Tensor row;             // [P]; within an expert, in order of tokens

  int64_t num_tokens() const { return token_offsets.size() - 1; }
  int64_t num_pairs() const { return expert.size(); }  // on kMeta: the most there can be
  int64_t num_experts() const { return expert_offsets.size() - 1; }
};

namespace kernels {

// Completes a plan from the experts of each token. token_offsets [T + 1], experts [P] int32 in
// [0, num_experts), no expert twice for a token.
RoutingPlan BuildPlan(const Tensor& token_offsets, const Tensor& experts, int64_t num_experts,
                      Context& ctx);

// The token of each row of the grouped order: [P] int32.
Tensor RowTokens(const RoutingPlan& plan, Context& ctx);

// The k experts of highest scores + bias for each token, best first; exact ties go to the lower
// expert, and a NaN counts as minus infinity. scores [T, E] F64 | F32; bias [E] of the same dtype,
// or undefined; k <= E. document_ids [T] int32, or undefined: a token below zero is padding and
// gets no expert.
struct TopKArgs {
  Tensor scores;
  Tensor bias = {};
  int64_t k;
  Tensor document_ids = {};
  // Tokens that are not padding, where the host knows it; -1: they are counted, and a device is
  // waited for.
  int64_t num_routed = -1;
};
RoutingPlan TopK(const TopKArgs& args, Context& ctx);

// The smallest difference, over tokens, between the k-th and the (k+1)-th best of scores + bias:
// how near the closest decision was. [1] F64, of the host, which computes it and waits for a
// device; infinite where nothing had to be decided.
Tensor TopKMargin(const TopKArgs& args, Context& ctx);

}  // namespace kernels
}  // namespace moebius
