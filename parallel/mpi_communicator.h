// Ranks that are processes of an MPI job. MPI is used from the main thread alone (funneled), and
// only to carry messages, between hosts or where processes cannot share memory. The one place, with
// the launcher's start-up, that knows MPI.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/base/status.h"
#include "parallel/communicator.h"
#include "parallel/progress.h"

namespace moebius {

// How many processes mpirun or srun says it started for this job, this one included; 0 when the
// process was started by neither.
int NumMpiProcesses();

class LaneEnds;

class MpiWorld {
 public:
  struct Options {
    WaitOptions wait;
    std::string board_directory;  // seen by all ranks: "<run.dir>/board"
    int threads_per_rank = 1;     // ranks that share cores make MPI yield them while it waits
    int64_t max_message_bytes = int64_t{1} << 30;  // longer ones are sent in parts
    bool share_memory = true;                      // within a host, where the system allows it
  };

  // Starts MPI. FailedPrecondition if MPI sees another number of processes than were started: the
  // launcher and the MPI library do not know each other.
  static absl::StatusOr<std::unique_ptr<MpiWorld>> Start(const Options& options);

  // Ends MPI. REQUIRES: no communicator of this world is in use. A rank that must end while others
  // still run calls _exit instead: mpirun and srun then end them.
  ~MpiWorld();

  Communicator& communicator() { return *communicator_; }

  // Whether ranks of one host talk through memory that they share; the others always by MPI.
  bool shares_memory() const { return lane_ends_ != nullptr; }

 private:
  MpiWorld() = default;

  std::shared_ptr<LaneEnds> lane_ends_;  // outlives what a failed wait has left under way
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<Communicator> communicator_;
};

}  // namespace moebius
