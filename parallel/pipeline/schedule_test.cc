#include "parallel/pipeline/schedule.h"

#include <gtest/gtest.h>

#include "parallel/pipeline/plan.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

// "F0 F1 B0 ...": one letter an action, and behind the micro-batch ' for chunk 1.
std::string Letters(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) {
    absl::StrAppend(&text, text.empty() ? "" : " ",
                    std::string(1, "FBIWaAgG"[static_cast<int>(action.kind)]), action.micro_batch,
                    action.chunk == 1 ? "'" : "");
  }
  return text;
}

TEST(Schedule, OneStageIsOneMicroBatchAfterTheOther) {
  EXPECT_EQ(Letters(ComputeActions({.num_micro_batches = 3}, 0)), "F0 B0 F1 B1 F2 B2");
}

TEST(Schedule, FirstAndLastStageOfThree) {
  const auto letters = [](ScheduleKind kind, int v, int m, int stage) {
    return Letters(ComputeActions({kind, 3, v, m}, stage));
  };
  EXPECT_EQ(letters(ScheduleKind::kGPipe, 1, 3, 1), "F0 F1 F2 B0 B1 B2");
  EXPECT_EQ(letters(ScheduleKind::k1F1B, 1, 4, 0), "F0 F1 F2 B0 F3 B1 B2 B3");
  EXPECT_EQ(letters(ScheduleKind::k1F1B, 1, 4, 2), "F0 B0 F1 B1 F2 B2 F3 B3");
  EXPECT_EQ(letters(ScheduleKind::k1F1B, 1, 1, 0), "F0 B0");
  EXPECT_EQ(letters(ScheduleKind::kInterleaved1F1B, 2, 3, 2),
            "F0 F1 F2 F0' B0' F1' B1' F2' B2' B0 B1 B2");
  EXPECT_EQ(letters(ScheduleKind::kZeroBubbleH1, 1, 4, 0), "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3");
  EXPECT_EQ(letters(ScheduleKind::kZeroBubbleH1, 1, 4, 2), "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
  EXPECT_EQ(letters(ScheduleKind::kZeroBubbleV, 2, 2, 2),
            "F0 F0' F1 F1' I0' W0' I0 W0 I1' W1' I1 W1");
}

TEST(Schedule, PlacesOfVirtualStages) {
  const PipelineSpec interleaved{ScheduleKind::kInterleaved1F1B, 3, 2, 3};
  const PipelineSpec v{ScheduleKind::kZeroBubbleV, 3, 2, 6};
  std::vector<int> ring, turn;
  for (int i = 0; i < 6; ++i) {
    ring.push_back(PlaceOf(interleaved, i).stage);
    turn.push_back(PlaceOf(v, i).stage);
    EXPECT_EQ(VirtualStageOf(interleaved, PlaceOf(interleaved, i)), i);
    EXPECT_EQ(VirtualStageOf(v, PlaceOf(v, i)), i);
  }
  EXPECT_EQ(ring, (std::vector<int>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(turn, (std::vector<int>{0, 1, 2, 2, 1, 0}));
}

TEST(Schedule, RefusesWithTheRule) {
  const auto why = [](ScheduleKind kind, int p, int v, int m) {
    const PipelineSpec spec{kind, p, v, m};
    EXPECT_EQ(MakePlan(spec).status(), Validate(spec));
    return std::string(Validate(spec).message());
  };
  EXPECT_EQ(why(ScheduleKind::kGPipe, 0, 1, 4),
            "pipeline schedule GPipe: 0 stages; there is at least 1");
  EXPECT_EQ(why(ScheduleKind::k1F1B, 4, 1, 0),
            "pipeline schedule 1F1B: 0 micro-batches; there is at least 1");
  EXPECT_EQ(why(ScheduleKind::k1F1B, 4, 2, 8),
            "pipeline schedule 1F1B: 2 chunks of a stage; it has 1");
  EXPECT_EQ(why(ScheduleKind::kInterleaved1F1B, 4, 1, 8),
            "pipeline schedule interleaved 1F1B: 1 chunks of a stage; it needs 2 or more");
  EXPECT_EQ(why(ScheduleKind::kInterleaved1F1B, 4, 2, 6),
            "pipeline schedule interleaved 1F1B: 6 micro-batches; it needs a multiple of the 4 "
            "stages");
  EXPECT_EQ(why(ScheduleKind::kZeroBubbleH1, 4, 1, 3),
            "pipeline schedule ZB-H1: 3 micro-batches; it needs as many as the 4 stages or more");
  EXPECT_EQ(why(ScheduleKind::kZeroBubbleV, 4, 1, 8),
            "pipeline schedule ZB-V: 1 chunks of a stage; it needs 2");
}

TEST(Plan, MessagesFollowAndPrecede) {
  const PipelinePlan plan = *MakePlan({.num_stages = 2, .num_micro_batches = 2});
  // a: send activation, A: receive it, g: send gradient, G: receive it.
  EXPECT_EQ(Letters(plan.stages[0]), "F0 a0 G0 F1 a1 G1 B0 B1");
  EXPECT_EQ(Letters(plan.stages[1]), "A0 F0 A1 B0 g0 F1 B1 g1");
}

TEST(Plan, OneStageHasNoMessages) {
  for (const auto& [kind, v] : {std::pair(ScheduleKind::kGPipe, 1),
                                {ScheduleKind::k1F1B, 1},
                                {ScheduleKind::kInterleaved1F1B, 3},
                                {ScheduleKind::kZeroBubbleH1, 1},
                                {ScheduleKind::kZeroBubbleV, 2}}) {
    const PipelineSpec spec{kind, 1, v, 4};
    EXPECT_EQ(MakePlan(spec)->stages[0], ComputeActions(spec, 0)) << NameOf(kind);
  }
}

TEST(Plan, ForwardOnlyKeepsThePlaces) {
  const PipelinePlan plan = *MakePlan({ScheduleKind::kZeroBubbleV, 2, 2, 3}, Passes::kForwardOnly);
  EXPECT_EQ(Letters(plan.stages[1]).find_first_of("BIWgG"), std::string::npos);
  EXPECT_EQ(Letters(plan.stages[1]), "A0 F0 A1 F0' a0' F1 A2 F1' a1' F2 F2' a2'");
}

}  // namespace
}  // namespace moebius
