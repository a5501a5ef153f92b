// Starting ranks: processes that mpirun or srun made, or threads of this process.
#pragma once

#include <functional>
#include <string>

#include "core/base/status.h"
#include "launcher/core_shares.h"
#include "parallel/communicator.h"
#include "parallel/progress.h"

namespace moebius {

// What the environment says, before MPI starts.
int WorldSize(int thread_ranks);  // processes under mpirun or srun, threads else
bool SpeaksForAll();              // the first process of the job, or the only one

// Refuses thread ranks under mpirun and srun.
absl::Status CheckRanks(int thread_ranks);

struct RankOptions {
  int thread_ranks = 1;      // ranks of this process; more than 1 only without mpirun and srun
  int threads_per_rank = 0;  // 0: this host's cores divided by the ranks on it
  WaitOptions wait = {};
  std::string board_directory = "";  // where processes show what they do; every host sees it
};

// Calls body(world, cores) on every rank of this process, and returns the first error of its ranks.
absl::Status RunRanks(
    const RankOptions& options,
    const std::function<absl::Status(Communicator& world, const RankCores& cores)>& body);

// The same for commands of a single rank. InvalidArgument where mpirun or srun has started more.
absl::Status RunAlone(
    const std::function<absl::Status(Communicator& world, const RankCores& cores)>& body);

}  // namespace moebius
