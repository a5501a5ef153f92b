// Ranks that are processes train the numbers of one rank. Run by mpirun: see the mpi_test rule.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "parallel/mpi_communicator.h"
#include "tests/parity/cells.h"
#include "tests/parity/parity_run.h"

namespace moebius {
namespace {

MpiWorld* g_world = nullptr;

// Rank 0 trains alone meanwhile, and compares.
void ExpectParity(const char* name, const Overrides& overrides, const Tolerance& tolerance,
                  int zero_stage = 0) {
  Communicator& world = g_world->communicator();
  ParityCurve one;
  if (world.rank() == 0) one = TrainOnThreads({}, overrides);
  for (const int expert_size : {1, world.size()}) {
    const Layout layout = {.ranks = world.size(),
                           .expert_size = expert_size,
                           .micro_batch_size = 2,
                           .zero_stage = zero_stage};
    const ParityCurve curve = TrainOnRank(layout, overrides, world);
    if (world.rank() != 0) continue;
    const Difference difference = Compare(one, curve);
    std::printf("| %s | %d | %d | %d | %s | %.1e |\n", name, layout.ranks, layout.expert_size,
                layout.micro_batch_size, difference.ToString().c_str(), one.min_margin);
    EXPECT_TRUE(difference.Within(tolerance)) << name << ": " << layout.ToString();
  }
}

TEST(MpiParity, Tiny) { ExpectParity("tiny", {"precision.compute=FP64"}, kDoubleTolerance); }

TEST(MpiParity, ManyLosses) {
  ExpectParity("many_losses",
               {"precision.compute=FP64", "train.sequence_length=16",
                "model.moe.balance={loss { scope: SEQUENCE weight: 0.01 } loss { weight: 0.05 } "
                "z_loss_weight: 0.01 bias_update_rate: 0.01 global_counts: EXACT}"},
               kDoubleTolerance);
}

TEST(MpiParity, SomeEmpty) {
  ExpectParity(
      "some_empty",
      {"precision.compute=FP64", "train.sequence_length=16", "model.moe.debug_routing=SOME_EMPTY"},
      kDoubleTolerance);
}

TEST(MpiParity, ZeroStages) {
  const Overrides overrides = {"precision.compute=FP64", "train.sequence_length=16"};
  ExpectParity("ZeRO stage 1", overrides, kDoubleTolerance, 1);
  ExpectParity("ZeRO stage 2", overrides, kDoubleTolerance, 2);
  ExpectParity("ZeRO stage 3", overrides, kDoubleTolerance, 3);
}

// Layouts drawn from all options: tensor, context, pipeline, experts, ZeRO, recompute.
TEST(MpiParity, DrawnLayouts) {
  constexpr int kNumLayouts = 10, kDrawn = 400;
  Communicator& world = g_world->communicator();
  ParityCurve one;
  if (world.rank() == 0) one = TrainOnThreads({}, kCutEverywhere);
  int left = kNumLayouts;
  for (const Layout& layout : DrawLayouts(kCutEverywhere, kDrawn, /*seed=*/1)) {
    if (layout.ranks != world.size() || left == 0) continue;
    --left;
    const ParityCurve curve = TrainOnRank(layout, kCutEverywhere, world);
    if (world.rank() != 0) continue;
    const Difference difference = Compare(one, curve);
    std::printf("| %s | %s |\n", layout.ToString().c_str(), difference.ToString().c_str());
    EXPECT_TRUE(difference.Within(kDoubleTolerance)) << layout.ToString();
  }
  EXPECT_EQ(left, 0) << "draw more";
}

TEST(MpiParity, TinyInSingle) { ExpectParity("tiny, FP32", {"run.seed=6"}, kSingleTolerance); }

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto world =
      moebius::MpiWorld::Start({.wait = {.deadline = std::chrono::minutes(1)},
                                .board_directory = std::string(std::getenv("TMPDIR")) + "/board"});
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return 1;
  }
  moebius::g_world = world->get();
  return RUN_ALL_TESTS();
}
