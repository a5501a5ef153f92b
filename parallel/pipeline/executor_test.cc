#include "parallel/pipeline/executor.h"

#include <gtest/gtest.h>

#include <array>

#include "kernels/weight_images.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/pipeline_checks.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

void CheckOnThreads(const PipelineSpec& spec) {
  RunOnThreads(spec.num_stages, [&](Communicator& world) { CheckGradients(spec, world); });
}

class AllSchedules : public testing::TestWithParam<std::pair<ScheduleKind, int>> {};

TEST_P(AllSchedules, GiveTheGradientsOfOneRank) {
  const auto [kind, v] = GetParam();
  for (const int p : {1, 2, 3, 4}) {
    for (const int m : {p, 2 * p, 3 * p}) CheckOnThreads({kind, p, v, m});
  }
}

INSTANTIATE_TEST_SUITE_P(Executor, AllSchedules,
                         testing::Values(std::pair(ScheduleKind::kGPipe, 1),
                                         std::pair(ScheduleKind::k1F1B, 1),
                                         std::pair(ScheduleKind::kInterleaved1F1B, 2),
                                         std::pair(ScheduleKind::kInterleaved1F1B, 3),
                                         std::pair(ScheduleKind::kZeroBubbleH1, 1),
                                         std::pair(ScheduleKind::kZeroBubbleV, 2)));

TEST(Executor, AnyNumberOfMicroBatchesWhereLegal) {
  CheckOnThreads({ScheduleKind::kGPipe, 4, 1, 1});
  CheckOnThreads({ScheduleKind::k1F1B, 4, 1, 2});
  CheckOnThreads({ScheduleKind::kZeroBubbleH1, 3, 1, 7});
  CheckOnThreads({ScheduleKind::kZeroBubbleV, 3, 2, 1});
}

// Two pipelines of two stages, side by side.
TEST(Executor, RunsOverTheGroupOfItsAxis) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.pipeline = 2}, world);
    CheckGradients({ScheduleKind::k1F1B, 2, 1, 4}, mesh->group(Axis::kPipeline));
  });
}

TEST(Executor, ForwardOnlyRunsEveryChunkAndWritesNoGradient) {
  const PipelineSpec spec{ScheduleKind::kZeroBubbleV, 2, 2, 4};
  RunOnThreads(2, [&](Communicator& world) {
    Context context;
    kernels::ResidentWeights weights(context);
    Chain whole(context, 4, {0, 1, 2, 3});
    RunOnOneRank(whole, 4, 4, context, weights);
    Chain chain(context, 4, HeldBy(spec, world.rank()));
    PipelineExecutor({chain, world, context, weights}).Run(*MakePlan(spec, Passes::kForwardOnly));
    EXPECT_EQ(chain.num_forwards(), 8);
    EXPECT_EQ(chain.loss(), world.rank() == 0 ? whole.loss() : 0);  // the end of the V
    for (const auto& [i, w] : chain.weights()) EXPECT_FALSE(w->gradient_written);
  });
}

int64_t PeakBytes(const PipelineSpec& spec, Communicator& stages, Device device) {
  Context context({.device = device});
  kernels::ResidentWeights weights(context);
  Chain chain(context, spec.num_virtual_stages(), HeldBy(spec, stages.rank()));
  PipelineExecutor({chain, stages, context, weights}).Run(*MakePlan(spec));
  return context.arena().total().peak_bytes;
}

TEST(Executor, OneStageOf1F1BHasTheMemoryOfALoop) {
  constexpr int kNumMicroBatches = 12;
  RunOnThreads(1, [](Communicator& world) {
    Context context;
    kernels::ResidentWeights weights(context);
    Chain chain(context, 1, {0});
    RunOnOneRank(chain, 1, kNumMicroBatches, context, weights);
    const int64_t loop = context.arena().total().peak_bytes;
    EXPECT_EQ(PeakBytes({ScheduleKind::k1F1B, 1, 1, kNumMicroBatches}, world, kCpu), loop);
    EXPECT_GT(PeakBytes({ScheduleKind::kGPipe, 1, 1, kNumMicroBatches}, world, kCpu), loop);
  });
}

// The memory of a stage can be played without the others.
TEST(Executor, MetaNeedsNoOtherRank) {
  std::array<int64_t, 2> peaks{};
  RunOnThreads(4, [&](Communicator& world) {
    if (world.rank() > 1) return;
    peaks[world.rank()] = PeakBytes({ScheduleKind::k1F1B, 4, 1, 8}, world, kMeta);
  });
  EXPECT_GT(peaks[0], peaks[1]);  // 4 stashes and 3
}

}  // namespace
}  // namespace moebius
