#include "kernels/routing_plan.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

Tensor Int32(int64_t size, Context& ctx) { return ctx.Empty(DType::kI32, {size}, "plan"); }

bool IsPadding(const TopKArgs& args, int64_t t) {
  return args.document_ids.defined() && args.document_ids.data<int32_t>()[t] < 0;
}

void CheckTopK(const TopKArgs& args) {
  const auto [T, E] = Dims<2>(args.scores);
  CheckDType(args.scores, PreciseDType(args.scores.dtype()));
  CHECK(1 <= args.k && args.k <= E) << args.k << " of " << E << " experts";
  if (args.bias.defined()) {
    CHECK_EQ(args.bias.shape(), (Shape{E}));
    CheckDType(args.bias, args.scores.dtype());
  }
  if (args.document_ids.defined()) {
    CHECK_EQ(args.document_ids.shape(), (Shape{T}));
    CheckDType(args.document_ids, DType::kI32);
  }
}

// The smallest margin of `k` of E, over the tokens that count.
template <class T>
double SmallestMargin(const TopKArgs& args) {
  const auto [num_tokens, E] = Dims<2>(args.scores);
  double margin = std::numeric_limits<double>::infinity();
  if (args.k == E) return margin;
  std::vector<T> scores(E);
  for (int64_t t = 0; t < num_tokens; ++t) {
    if (IsPadding(args, t)) continue;
    for (int64_t e = 0; e < E; ++e)
      scores[e] =
          args.scores.data<T>()[t * E + e] + (args.bias.defined() ? args.bias.data<T>()[e] : T{0});
    std::ranges::partial_sort(scores, scores.begin() + args.k + 1, std::greater());
    margin = std::min(margin, static_cast<double>(scores[args.k - 1] - scores[args.k]));
  }
  return margin;
}

int64_t NumPairs(const TopKArgs& args, const Tensor& offsets, Context& ctx) {
  if (!args.document_ids.defined()) return args.scores.shape()[0] * args.k;
  if (args.num_routed >= 0) return args.num_routed * args.k;
  const int64_t T = offsets.size() - 1;
  return ToHost(offsets.Slice(T, T + 1), ctx).data<int32_t>()[0];
}

}  // namespace

RoutingPlan BuildPlan(const Tensor& token_offsets, const Tensor& experts, int64_t num_experts,
                      Context& ctx) {
  const auto [P] = Dims<1>(experts);
  CheckDType(token_offsets, DType::kI32);
  CheckDType(experts, DType::kI32);
  const RoutingPlan plan = {token_offsets, experts, Int32(num_experts + 1, ctx), Int32(P, ctx)};
  const OpScope op = ctx.Start(Moves("plan", experts, plan.row));
  if (op.is_dry()) return plan;
  BackendFor(DType::kI32, ctx).build_plan(plan, ctx);
  return plan;
}

Tensor RowTokens(const RoutingPlan& plan, Context& ctx) {
  const Tensor tokens = Int32(plan.num_pairs(), ctx);
  const OpScope op = ctx.Start(Moves("plan", plan.row, tokens));
  if (op.is_dry()) return tokens;
  BackendFor(DType::kI32, ctx).row_tokens(plan, tokens, ctx);
  return tokens;
}

RoutingPlan TopK(const TopKArgs& args, Context& ctx) {
  CheckTopK(args);
  const auto [T, E] = Dims<2>(args.scores);
  const Tensor offsets = Int32(T + 1, ctx);
  const OpScope op = ctx.Start(Moves("top_k", args.scores));
  if (op.is_dry()) return BuildPlan(offsets, Int32(T * args.k, ctx), E, ctx);
  const Backend& backend = BackendFor(args.scores.dtype(), ctx);
  backend.offsets_of_k(args, offsets, ctx);
  const Tensor experts = Int32(NumPairs(args, offsets, ctx), ctx);
  backend.choose_top_k(args, offsets, experts, ctx);
  return BuildPlan(offsets, experts, E, ctx);
}

Tensor TopKMargin(const TopKArgs& args, Context& ctx) {
  CheckTopK(args);
  const Tensor margin = EmptyOnHost(DType::kF64, {1}, "top_k.margin", ctx);
  const OpScope op = ctx.Start(Moves("top_k.margin", args.scores));
  if (op.is_dry()) return margin;
  TopKArgs host = args;
  for (Tensor* x : {&host.scores, &host.bias, &host.document_ids}) {
    if (x->defined()) *x = ToHost(*x, ctx);
  }
  margin.data<double>()[0] = args.scores.dtype() == DType::kF64 ? SmallestMargin<double>(host)
                                                                : SmallestMargin<float>(host);
  return margin;
}

}  // namespace moebius::kernels
