// The executor on ranks that are processes, with messages that MPI does not buffer.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "parallel/mpi_communicator.h"
#include "parallel/pipeline/pipeline_checks.h"

namespace moebius {
namespace {

Communicator* g_world = nullptr;

constexpr int kScale = 500;  // at least 60 kB a message

class OnProcesses : public testing::TestWithParam<std::pair<ScheduleKind, int>> {};

TEST_P(OnProcesses, GiveTheGradientsOfOneRank) {
  const auto [kind, v] = GetParam();
  const int p = g_world->size();
  CheckGradients({kind, p, v, 2 * p}, *g_world, kScale);
}

INSTANTIATE_TEST_SUITE_P(Executor, OnProcesses,
                         testing::Values(std::pair(ScheduleKind::kGPipe, 1),
                                         std::pair(ScheduleKind::k1F1B, 1),
                                         std::pair(ScheduleKind::kInterleaved1F1B, 2),
                                         std::pair(ScheduleKind::kZeroBubbleH1, 1),
                                         std::pair(ScheduleKind::kZeroBubbleV, 2)));

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  moebius::MpiWorld::Options options;
  options.board_directory = std::string(std::getenv("TMPDIR")) + "/board";
  auto world = moebius::MpiWorld::Start(options);
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return 1;
  }
  moebius::g_world = &(*world)->communicator();
  return RUN_ALL_TESTS();
}
