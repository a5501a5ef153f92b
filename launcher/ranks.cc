#include "launcher/ranks.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "absl/strings/numbers.h"
#include "parallel/mpi_communicator.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

// The first of these variables that is set to a number, as mpirun (Open MPI) and srun set them.
int FromEnvironment(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names) {
    int value = 0;
    const char* text = std::getenv(name);
    if (text != nullptr && absl::SimpleAtoi(text, &value)) return value;
  }
  return otherwise;
}

int ProcessRank() {
  return FromEnvironment({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}, 0);
}

std::vector<int> AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

int HostCores() { return static_cast<int>(std::thread::hardware_concurrency()); }

// How many processes srun has started on this host; 1 where it says nothing.
int SlurmTasksHere() {
  const int requested = FromEnvironment({"SLURM_NTASKS_PER_NODE"}, 1);
  const char* by_node = std::getenv("SLURM_STEP_TASKS_PER_NODE");
  if (by_node == nullptr) return requested;
  return TasksOnNode(by_node, FromEnvironment({"SLURM_NODEID"}, 0)).value_or(requested);
}

// Where this process stands among those of its host.
HostRank RankOnHost() {
  HostRank rank{
      .index = FromEnvironment({"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}, 0),
      .count = FromEnvironment({"OMPI_COMM_WORLD_LOCAL_SIZE"}, 0),
  };
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) {
    rank.bound = FromEnvironment({"OMPI_MCA_orte_bound_at_launch"}, 0) != 0;
  }
  if (rank.count == 0) rank.count = SlurmTasksHere();
  rank.count = std::max(rank.count, rank.index + 1);
  return rank;
}

absl::Status RunThreads(const RankOptions& options,
                        const std::function<absl::Status(Communicator&, const RankCores&)>& body) {
  const std::vector<int> cores = AllowedCores();
  std::mutex mutex;
  absl::Status first;
  RunOnThreads(options.thread_ranks, options.wait, [&](Communicator& world) {
    const RankCores own = CoresOf({.index = world.rank(), .count = world.size(), .bound = false},
                                  cores, HostCores(), options.threads_per_rank);
    const absl::Status status = body(world, own);
    const std::lock_guard lock(mutex);
    if (first.ok()) first = status;
  });
  return first;
}

absl::Status RunProcess(const RankOptions& options,
                        const std::function<absl::Status(Communicator&, const RankCores&)>& body) {
  const RankCores own =
      CoresOf(RankOnHost(), AllowedCores(), HostCores(), options.threads_per_rank);
  ASSIGN_OR_RETURN(const std::unique_ptr<MpiWorld> world,
                   MpiWorld::Start({.wait = options.wait,
                                    .board_directory = options.board_directory,
                                    .threads_per_rank = own.num_threads}));
  return body(world->communicator(), own);
}

}  // namespace

int WorldSize(int thread_ranks) {
  const int processes = NumMpiProcesses();
  return processes > 0 ? processes : thread_ranks;
}

absl::Status CheckRanks(int thread_ranks) {
  if (thread_ranks == 1 || NumMpiProcesses() == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--ranks: ranks are threads or processes, not both; under mpirun or srun leave it out");
}

bool SpeaksForAll() { return NumMpiProcesses() == 0 || ProcessRank() == 0; }

absl::Status RunRanks(
    const RankOptions& options,
    const std::function<absl::Status(Communicator& world, const RankCores& cores)>& body) {
  RETURN_IF_ERROR(CheckRanks(options.thread_ranks));
  return NumMpiProcesses() == 0 ? RunThreads(options, body) : RunProcess(options, body);
}

absl::Status RunAlone(
    const std::function<absl::Status(Communicator& world, const RankCores& cores)>& body) {
  if (NumMpiProcesses() > 1) {
    return absl::InvalidArgumentError(
        "this command runs in a single process; start it without mpirun or srun");
  }
  return RunThreads({}, body);
}

}  // namespace moebius
