// Where each rank shows what it is doing, so that an error can say who is missing and who called
// something else. A rank publishes every collective and message that it starts; the others look
// only when a wait takes long. Reading never blocks the writer, and publishing takes no lock and no
// memory: a few stores.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/process.h"
#include "core/base/status.h"
#include "parallel/call.h"

namespace moebius {

enum class CallState {
  kStarted,
  kWaiting,  // the rank does nothing else until it is done
  kDone,
};

// The steady clock of this host.
int64_t BoardClockNs();

// A call as a board shows it. Times are of the clock of the writer's host.
struct ShownCall {
  Call call;
  std::string group;
  CallState state = CallState::kStarted;
  int64_t started_ns = 0;
  int64_t done_ns = 0;  // of a kDone
};

// What others see of a rank.
struct RankSight {
  bool has_page = false;          // else the rest is unknown
  std::optional<ShownCall> last;  // the call it waits in, or else the last it started
  std::optional<int> waits_for;   // the rank, where a wait has taken long
  bool failed = false;            // it ends its process, for itself or for what another did
  bool reported = false;          // and has written down why
};

class Board {
 public:
  static constexpr int kMaxGroups = 256;  // of one rank
  static constexpr int kHistory = 256;    // calls of one rank that are remembered
  struct Page;                            // what one rank shows (board_page.h)

  // Ranks that are threads of this process.
  static std::unique_ptr<Board> InMemory(int num_ranks);

  // Ranks that are processes: one file a rank in `directory`, which all hosts see. The file is
  // mapped by its writer: readers on the same host see it at once, others when the system has
  // written it back. It outlives a process that is killed. `run` tells this run's files from older
  // ones and is the same on every rank, as are `processes`, one a rank.
  static absl::StatusOr<std::unique_ptr<Board>> InFiles(const std::string& directory, int rank,
                                                        uint64_t run,
                                                        std::vector<ProcessId> processes);

  virtual ~Board() = default;

  // What a rank shows of itself; on its own thread. Group numbers agree over the ranks of a group;
  // call.order counts up.
  void Publish(int rank, int group, const std::string& group_name, const Call& call);
  void SetWaiting(int rank, const Call& call);
  void SetDone(int rank, const Call& call);
  void SetWaitsFor(int rank, std::optional<int> other);
  void SetFailed(int rank);
  void SetReported(int rank);  // any thread of the rank's process

  int num_ranks() const { return static_cast<int>(processes_.size()); }

  // The number of the last collective of `rank` in the group; 0 if none is known.
  int64_t Latest(int rank, int group) const;

  // The group's collective with this number, while it is among the last calls of the rank.
  std::optional<Call> At(int rank, int group, int64_t sequence) const;

  RankSight Look(int rank) const;
  std::vector<ShownCall> History(int rank) const;  // oldest first; of the own rank: any thread

  // kUnknown for ranks that are threads.
  ProcessState StateOf(int rank) const { return moebius::StateOf(processes_[rank]); }

 protected:
  explicit Board(std::vector<ProcessId> processes) : processes_(std::move(processes)) {}
  virtual std::shared_ptr<Page> PageOf(int rank) const = 0;  // null if there is none

 private:
  const std::vector<ProcessId> processes_;
};

}  // namespace moebius
