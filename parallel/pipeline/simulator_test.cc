#include "parallel/pipeline/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

namespace moebius {
namespace {

using Kind = Action::Kind;

constexpr ScheduleKind kSchedules[] = {ScheduleKind::kGPipe, ScheduleKind::k1F1B,
                                       ScheduleKind::kInterleaved1F1B, ScheduleKind::kZeroBubbleH1,
                                       ScheduleKind::kZeroBubbleV};

// Calls body(spec) for every legal schedule of up to 8 stages, 4 chunks and 32 micro-batches.
template <class Body>
int ForEachLegal(Body body) {
  int count = 0;
  for (const ScheduleKind kind : kSchedules) {
    for (int p = 1; p <= 8; ++p) {
      for (int v = 1; v <= 4; ++v) {
        for (int m = 1; m <= 32; ++m) {
          const PipelineSpec spec{kind, p, v, m};
          if (!Validate(spec).ok()) continue;
          SCOPED_TRACE(absl::StrCat(NameOf(kind), ", p ", p, ", v ", v, ", m ", m));
          body(spec);
          ++count;
        }
      }
    }
  }
  return count;
}

std::vector<ChunkTimes> Everywhere(const PipelineSpec& spec, const ChunkTimes& times) {
  return std::vector<ChunkTimes>(spec.num_virtual_stages(), times);
}

// Of a stage whose chunks take `t` each.
double PublishedBubble(const PipelineSpec& spec, const ChunkTimes& t) {
  const int p = spec.num_stages;
  switch (spec.schedule) {
    case ScheduleKind::kGPipe:
    case ScheduleKind::k1F1B:
    case ScheduleKind::kInterleaved1F1B:  // (F + B) / v is the time of a chunk
      return (p - 1) * (t.forward + t.input_gradients + t.weight_gradients);
    case ScheduleKind::kZeroBubbleH1:
      return (p - 1) * (t.forward + t.input_gradients - t.weight_gradients);
    case ScheduleKind::kZeroBubbleV:
      return 0;
  }
  return -1;
}

int PublishedStashes(const PipelineSpec& spec) {  // in chunks
  const int p = spec.num_stages, v = spec.num_chunks;
  if (spec.schedule == ScheduleKind::kGPipe) return spec.num_micro_batches;
  if (spec.schedule == ScheduleKind::kInterleaved1F1B) return p * v + p - 1;
  return p * v;
}

bool HasFormula(const PipelineSpec& spec) {
  const int p = spec.num_stages, m = spec.num_micro_batches;
  return m >= 2 * p && m % p == 0;
}

TEST(Simulator, EveryLegalPlanRunsToItsEnd) {
  const int count = ForEachLegal([](const PipelineSpec& spec) {
    for (const Passes passes : {Passes::kForwardBackward, Passes::kForwardOnly}) {
      const auto result = Simulate(*MakePlan(spec, passes), {.sends_in_flight = 1});
      ASSERT_TRUE(result.ok()) << result.status();
      for (const StageSimulation& stage : result->stages) EXPECT_LE(stage.peak_received, 3);
    }
  });
  EXPECT_EQ(count, 3 * 8 * 32 - 28 + 3 * (32 + 16 + 10 + 8 + 6 + 5 + 4 + 4) + 8 * 32);
}

TEST(Simulator, MoreThanOneMessageInFlightHelpsNobody) {
  ForEachLegal([](const PipelineSpec& spec) {
    const PipelinePlan plan = *MakePlan(spec);
    for (const double latency : {0.0, 0.25}) {
      const auto one = Simulate(plan, {.latency = latency, .sends_in_flight = 1});
      const auto many = Simulate(plan, {.latency = latency, .sends_in_flight = 1000});
      EXPECT_EQ(one->makespan, many->makespan);
    }
  });
}

TEST(Simulator, MicroBatchesKeepTheirOrderInEveryChunk) {
  ForEachLegal([](const PipelineSpec& spec) {
    for (int stage = 0; stage < spec.num_stages; ++stage) {
      std::map<std::pair<Kind, int>, int> next;
      for (const Action& action : ComputeActions(spec, stage)) {
        EXPECT_EQ(action.micro_batch, (next[{action.kind, action.chunk}]++));
      }
    }
  });
}

TEST(Simulator, BubblesAndStashesAreThePublishedOnes) {
  int count = 0;
  ForEachLegal([&](const PipelineSpec& spec) {
    if (!HasFormula(spec)) return;
    ++count;
    for (const double weight_share : {0.5, 1.0}) {
      const auto result = Simulate(*MakePlan(spec), {.weight_share = weight_share});
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->bubble, PublishedBubble(spec, {}));
      EXPECT_EQ(result->stages[0].peak_stashes, PublishedStashes(spec));
    }
  });
  EXPECT_GT(count, 200);
}

TEST(Simulator, BubblesWhereTimesDiffer) {
  const ChunkTimes times{.forward = 2, .input_gradients = 3, .weight_gradients = 1};
  ForEachLegal([&](const PipelineSpec& spec) {
    if (!HasFormula(spec) || spec.schedule == ScheduleKind::kZeroBubbleV) return;
    const auto result = Simulate(*MakePlan(spec), {.times = Everywhere(spec, times)});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->bubble, PublishedBubble(spec, times));
  });
}

// The stages of ZB-V never wait, but they start one after the other.
TEST(Simulator, ZeroBubbleVBeforeABarrier) {
  for (int p = 1; p <= 8; ++p) {
    const auto result = Simulate(*MakePlan({ScheduleKind::kZeroBubbleV, p, 2, 2 * p}));
    EXPECT_EQ(result->bubble, 0);
    EXPECT_EQ(result->makespan, 2 * p * 6 + (p - 1));  // a chunk's forward is half a stage's
  }
}

TEST(Simulator, HalfAStashStaysForWeightGradients) {
  const auto result = Simulate(*MakePlan({ScheduleKind::kZeroBubbleH1, 4, 1, 8}));
  EXPECT_EQ(result->stages[3].peak_stashes, 1 + 3 * 0.5);  // W lags by 3 micro-batches
}

TEST(Simulator, ATimelineByHand) {
  const PipelineSpec spec{.num_stages = 2, .num_micro_batches = 2};
  const auto result = Simulate(
      *MakePlan(spec), {.times = {{1, 1, 1}, {2, 2, 1}}, .latency = 0.5, .sends_in_flight = 1});
  ASSERT_TRUE(result.ok()) << result.status();
  const auto line = [&](int stage) {
    std::string text;
    for (const TimedAction& timed : result->stages[stage].timeline) {
      absl::StrAppend(&text, timed.start, "-", timed.end, " ");
    }
    return text;
  };
  EXPECT_EQ(line(0), "0-1 1-2 7-9 12-14 ");                 // F0 F1 B0 B1
  EXPECT_EQ(line(1), "1.5-3.5 3.5-6.5 6.5-8.5 8.5-11.5 ");  // F0 B0 F1 B1
  EXPECT_EQ(result->makespan, 14);
  EXPECT_EQ(result->stages[0].bubble, 8);
  EXPECT_EQ(result->stages[1].bubble, 0);
  EXPECT_EQ(result->bubble, 8);
  EXPECT_EQ(result->stages[0].peak_stashes, 2);
  EXPECT_EQ(result->stages[0].peak_received, 2);  // both gradients, before B0
}

std::vector<TimedAction> ForwardsOf(int stage, const Simulation& simulation) {
  std::vector<TimedAction> forwards = simulation.stages[stage].timeline;
  std::erase_if(forwards, [](const TimedAction& t) { return t.action.kind != Kind::kForward; });
  return forwards;
}

// Two messages on their way, if nothing else is said: the third waits for the first. Stage 1 starts
// its receives at 0, 0, 11.5, 21.5, ...
TEST(Simulator, HasAsManySendsInFlightAsTheExecutor) {
  const PipelinePlan plan = *MakePlan({ScheduleKind::kGPipe, 2, 1, 6});
  const auto result = Simulate(plan, {.times = {{1, 1, 1}, {10, 1, 1}}, .latency = 0.5});
  ASSERT_TRUE(result.ok()) << result.status();
  std::vector<double> ends;
  for (const TimedAction& timed : ForwardsOf(0, *result)) ends.push_back(timed.end);
  EXPECT_EQ(ends, (std::vector<double>{1, 2, 3, 4, 5, 13}));
}

TEST(Simulator, AMessageLeavesWhenTheOneBeforeHasMadeRoom) {
  const PipelinePlan plan = *MakePlan({ScheduleKind::kGPipe, 2, 1, 2});
  const auto result = Simulate(plan, {.latency = 5, .sends_in_flight = 1});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(ForwardsOf(1, *result)[0].start, 6);
  EXPECT_EQ(ForwardsOf(1, *result)[1].start, 11);
}

// Without room for a single untaken message the ring of interleaved stages comes to a stop.
TEST(Simulator, FindsADeadlock) {
  const PipelinePlan plan = *MakePlan({ScheduleKind::kInterleaved1F1B, 2, 2, 4});
  EXPECT_TRUE(Simulate(plan, {.sends_in_flight = 1}).ok());
  const absl::Status status = Simulate(plan, {.sends_in_flight = 0}).status();
  EXPECT_EQ(status.message().substr(0, 31), "deadlock: stage 0 waits in send") << status;
}

class BrokenPlan : public testing::Test {
 protected:
  static bool IsFound(const PipelinePlan& plan, const char* sentence) {
    const absl::Status status = Simulate(plan).status();
    EXPECT_EQ(status.message(), sentence);
    return !status.ok();
  }
  void Erase(int stage, const Action& action) {
    EXPECT_EQ(std::erase(plan_.stages[stage], action), 1u);
  }
  void Swap(int stage, const Action& a, const Action& b) {
    std::vector<Action>& actions = plan_.stages[stage];
    std::iter_swap(std::ranges::find(actions, a), std::ranges::find(actions, b));
  }

  PipelinePlan plan_ = *MakePlan({ScheduleKind::kZeroBubbleH1, 2, 1, 4});
};

TEST_F(BrokenPlan, LeavesOut) {
  Erase(1, {Kind::kWeightGradients, 0, 2});
  EXPECT_TRUE(IsFound(plan_, "stage 1: weight gradients of micro-batch 2, chunk 0: is missing"));
}

TEST_F(BrokenPlan, DoesTwice) {
  plan_.stages[0].push_back({Kind::kForward, 0, 1});
  EXPECT_TRUE(
      IsFound(plan_, "stage 0: forward of micro-batch 1, chunk 0: is there more than once"));
}

TEST_F(BrokenPlan, DoesMore) {
  plan_.stages[1].push_back({Kind::kReceiveGradient, 0, 1});
  EXPECT_TRUE(IsFound(plan_,
                      "stage 1: receiving the gradient of micro-batch 1, chunk 0: has no place in "
                      "the step"));
}

TEST_F(BrokenPlan, GoesBackwardFirst) {
  Swap(1, {Kind::kForward, 0, 0}, {Kind::kInputGradients, 0, 0});
  EXPECT_TRUE(IsFound(
      plan_, "stage 1: input gradients of micro-batch 0, chunk 0: stands before its forward"));
}

TEST_F(BrokenPlan, ReceivesLate) {
  Swap(1, {Kind::kReceiveActivation, 0, 0}, {Kind::kForward, 0, 0});
  EXPECT_TRUE(IsFound(
      plan_, "stage 1: forward of micro-batch 0, chunk 0: stands before the receive of its input"));
}

TEST_F(BrokenPlan, SendsWhatIsNotComputed) {
  Swap(0, {Kind::kForward, 0, 0}, {Kind::kSendActivation, 0, 0});
  EXPECT_TRUE(IsFound(
      plan_,
      "stage 0: sending the activation of micro-batch 0, chunk 0: stands before its forward"));
}

TEST_F(BrokenPlan, TakesWeightGradientsFirst) {
  Swap(0, {Kind::kInputGradients, 0, 0}, {Kind::kWeightGradients, 0, 0});
  EXPECT_TRUE(IsFound(plan_,
                      "stage 0: weight gradients of micro-batch 0, chunk 0: stands before its "
                      "input gradients"));
}

TEST_F(BrokenPlan, ReceivesInAnotherOrder) {
  plan_ = *MakePlan({ScheduleKind::kGPipe, 2, 1, 2});
  std::vector<Action>& actions = plan_.stages[1];
  std::erase_if(actions, [](const Action& a) { return a.kind == Kind::kReceiveActivation; });
  actions.insert(actions.begin(),
                 {{Kind::kReceiveActivation, 0, 1}, {Kind::kReceiveActivation, 0, 0}});
  EXPECT_TRUE(IsFound(plan_,
                      "stage 0 sends the activation of micro-batch 0 from virtual stage 0 to 1 "
                      "where stage 1 receives the activation of micro-batch 1 from virtual stage "
                      "0 to 1"));
}

TEST_F(BrokenPlan, TurnsBeforeTheFirstChunk) {
  plan_ = *MakePlan({ScheduleKind::kZeroBubbleV, 1, 2, 1});
  Swap(0, {Kind::kForward, 0, 0}, {Kind::kForward, 1, 0});
  EXPECT_TRUE(IsFound(
      plan_, "stage 0: forward of micro-batch 0, chunk 1: stands before its input's chunk"));
}

}  // namespace
}  // namespace moebius
