// Choices of experts that are recorded in one layout and followed in another, and the bound below
// which two correct runs may choose differently.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "model/inputs.h"
#include "tests/parity/cell_checks.h"
#include "tests/parity/routing_trace.h"

namespace moebius {
namespace {

const Layout kFourRanks = {.ranks = 4,
                           .expert_size = 2,
                           .micro_batch_size = 2,
                           .more = {"parallel.tensor_size=2", "parallel.recompute=FULL"}};
const Overrides kShort = {"train.sequence_length=16", "train.num_steps=8",
                          "precision.compute=FP64"};
constexpr int64_t kStepTokens = 16 * 16;

// Every token goes one expert further than the router says.
RoutingPlan Rotate(const Selection& selection, Context& context) {
  const RoutingPlan& plan = selection.plan;
  const Tensor experts = context.Empty(DType::kI32, plan.expert.shape(), "test.plan");
  std::ranges::transform(plan.expert.span<int32_t>(), experts.data<int32_t>(), [&](int32_t e) {
    return static_cast<int32_t>((e + 1) % plan.num_experts());
  });
  return kernels::BuildPlan(plan.token_offsets, experts, plan.num_experts(), context);
}

ParityCurve TrainWith(const Layout& layout, const SelectionHook& hook) {
  return TrainOnThreads(layout, kShort, nullptr,
                        {.begin = [&](Session& session) { session.set_selection_hook(hook); }});
}

// The router's own choices would train other numbers than those that are replayed.
TEST(Replay, FollowsTheRecordedChoicesInAnotherLayout) {
  RoutingTrace recorded(kStepTokens);
  const ParityCurve rotated = TrainWith({}, [&](const Selection& selection, Context& context) {
    const RoutingPlan plan = Rotate(selection, context);
    return recorded.Hook()({.layer = selection.layer,
                            .batch = selection.batch,
                            .pass = selection.pass,
                            .x = selection.x,
                            .scores = selection.scores,
                            .bias = selection.bias,
                            .plan = plan},
                           context);
  });
  RoutingTrace replayed(recorded, RoutingTrace::Mode::kReplay);
  const ParityCurve followed = TrainWith(kFourRanks, replayed.Hook());
  const Difference same = Compare(rotated, followed);
  EXPECT_TRUE(same.Within(kDoubleTolerance)) << same.ToString();
  EXPECT_GT(replayed.choices().size(), recorded.choices().size() / 2) << "own choices are others";

  const Difference other = Compare(TrainWith({}, nullptr), followed);
  EXPECT_GT(other.moved_pairs, 0);
  EXPECT_GT(other.curve, 1e-6);
}

TEST(Replay, WatchingChangesNoBit) {
  RoutingTrace recorded(kStepTokens);
  const ParityCurve watched = TrainWith(kFourRanks, recorded.Hook());
  const ParityCurve alone = TrainWith(kFourRanks, nullptr);
  EXPECT_EQ(watched.loss, alone.loss);
  EXPECT_EQ(watched.final_state, alone.final_state);
}

// Makes the router's rows of experts 1, 3, ... those of their neighbours, but for the last bits.
void PairExperts(Session& session) {
  for (Parameter* parameter : session.model().store().parameters()) {
    if (parameter->group != ParameterGroup::kRouter) continue;
    const int64_t D = parameter->value.shape()[1];
    const auto w = parameter->value.span<float>();
    for (int64_t i = 0; i < std::ssize(w); ++i) {
      const bool is_odd = i / D % 2 == 1;
      if (is_odd) w[i] = std::nextafter(w[i - D], i % 3 == 0 ? 1.0f : -1.0f);
    }
    ++parameter->version;
  }
}

// The third of three chosen experts nearly ties with its neighbour, for every token.
TEST(NearTies, LieBelowTheBound) {
  const MatrixCell cell = {
      .name = "",
      .trained = {"train.sequence_length=48", "train.global_batch_size=12", "train.num_steps=5",
                  "model.moe.top_k=3", "optimizer.peak_lr=0.000000001"},
      .layout = kFourRanks,
      .reference = {.micro_batch_size = 6}};
  const ReplayResult result = CompareReplayed(cell, PairExperts);
  std::printf("%d near ties, margins up to %.1e, %.2f of the bound; %d flips\n",
              static_cast<int>(result.near_ties.count), result.near_ties.margin,
              result.near_ties.share_of_bound, static_cast<int>(result.flips));
  EXPECT_TRUE(result.passed());
  EXPECT_GT(result.near_ties.count, 10);
  EXPECT_GT(result.flips, 10);
}

// One token of two experts, D = 2, whose router inputs agree.
TEST(NearTies, OtherChoicesOfEqualInputsAreMistakes) {
  const std::vector<double> w = {1, 0, 0, 1};
  const auto choice = [](int32_t expert, double margin) {
    return TracedChoice{.experts = {expert},
                        .x = {0.1, 0.1},
                        .scores = {0.5 + margin / 2, 0.5 - margin / 2},
                        .bias = {0, 0}};
  };
  const double bound = NearTieBound(choice(0, 1e-7), choice(1, -1e-7), w, w);
  EXPECT_GT(bound, 10 * 0x1p-24);
  EXPECT_LT(bound, 100 * 0x1p-24);

  // An input that is off by some epsilon in one element moves that logit, and the bound, by it.
  TracedChoice moved = choice(1, -1e-7);
  moved.x[0] += 1e-3;
  EXPECT_NEAR(NearTieBound(choice(0, 1e-7), moved, w, w), bound + 1e-3, 1e-8);
}

}  // namespace
}  // namespace moebius
