// Run by mpirun: see the mpi_test rule. With --share_memory ranks talk through memory that they
// share.
#include "parallel/mpi_communicator.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "parallel/collective_checks.h"

namespace moebius {
namespace {

constexpr std::chrono::seconds kDeadline(2);  // for every wait of this program

bool g_share_memory = false;
MpiWorld* g_world = nullptr;
Communicator& World() { return g_world->communicator(); }

TEST(MpiRanks, Reductions) { CheckReductions(World()); }
TEST(MpiRanks, LongReductions) { CheckLongReductions(World()); }
TEST(MpiRanks, Gathers) { CheckGathers(World()); }
TEST(MpiRanks, AllToAllV) { CheckAllToAllV(World()); }
TEST(MpiRanks, PointToPoint) { CheckPointToPoint(World()); }
TEST(MpiRanks, Splits) { CheckSplits(World()); }
TEST(MpiRanks, ManyUnderWay) { CheckManyUnderWay(World()); }

TEST(MpiRanks, AreAsManyAsWereStarted) { EXPECT_EQ(World().size(), NumMpiProcesses()); }

TEST(MpiRanks, ShareMemoryIfTheyShould) { EXPECT_EQ(g_world->shares_memory(), g_share_memory); }

// The failure handler throws here, so that the process lives on; the late rank then finds what the
// others have sent it.
TEST(MpiFailure, NamesTheMissingRankWithinTheDeadline) {
  World().Barrier().Wait();
  if (World().rank() == 1) std::this_thread::sleep_for(2 * kDeadline);
  std::string failure;
  try {
    World().Barrier().Wait();
  } catch (const std::runtime_error& error) {
    failure = error.what();
  }
  if (World().rank() != 1) {
    EXPECT_NE(failure.find("waits for rank 1; rank 1 last started barrier"), failure.npos)
        << failure;
    std::this_thread::sleep_for(kDeadline);
  }
  World().Barrier().Wait();
}

TEST(MpiFailure, NamesWhoCallsSomethingElse) {
  World().Barrier().Wait();
  static std::vector<float> x(5), y(5);  // the operations stay under way for ever
  std::string failure;
  try {
    if (World().rank() == 0) {
      World().AllReduce(std::span(x)).Wait();
    } else {
      World().AllReduceMax(std::span(y)).Wait();
    }
  } catch (const std::runtime_error& error) {
    failure = error.what();
  }
  EXPECT_NE(failure.find("where rank"), failure.npos) << failure;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  moebius::g_share_memory = argc > 1 && std::string(argv[1]) == "--share_memory";
  moebius::MpiWorld::Options options;
  options.wait.deadline = moebius::kDeadline;
  options.wait.on_failure = [](const std::string& sentence) { throw std::runtime_error(sentence); };
  options.board_directory = std::string(std::getenv("TMPDIR")) + "/board";
  options.share_memory = moebius::g_share_memory;
  options.max_message_bytes = 1000;  // so that most messages go in parts
  auto world = moebius::MpiWorld::Start(options);
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return 1;
  }
  moebius::g_world = world->get();
  return RUN_ALL_TESTS();
}
