// skipping_rank RUN_DIR: four ranks, processes under mpirun or else threads, of which rank 2 once
// leaves out a collective. What a mistake in a parallel layout looks like; run by faults_test.py.
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "core/base/check.h"
#include "launcher/exit_codes.h"
#include "launcher/failure_report.h"
#include "launcher/ranks.h"
#include "parallel/mpi_communicator.h"

namespace moebius {
namespace {

absl::Status Steps(Communicator& world, const RankCores&) {
  const auto data = world.Split(world.members(), "data");
  std::vector<float> sums(100), all(world.size()), mine(1);
  for (int step = 1; step <= 20; ++step) {
    data->AllReduce(std::span(sums)).Wait();
    if (world.rank() == 2 && step == 5) continue;
    data->AllGather(std::span(mine), std::span(all)).Wait();
  }
  return absl::OkStatus();
}

int Main(const std::string& run) {
  const auto report = std::make_shared<FailureReport>(RunPaths{run});
  SetLastWords([=](const std::string& sentence, int code) { report->Write(sentence, code); });
  const absl::Status status =
      RunRanks({.thread_ranks = NumMpiProcesses() > 0 ? 1 : 4,
                .wait = {.deadline = std::chrono::minutes(5),
                         .on_start = [=](int rank, auto board) { report->Add(rank, board); }},
                .board_directory = run + "/board"},
               Steps);
  std::fprintf(stderr, "ended with %s\n", status.ToString().c_str());
  return kExitDone;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  return argc == 2 ? moebius::Main(argv[1]) : moebius::kExitBadInput;
}
