// Drives the operations that one rank has started, on all its groups, and watches the clock while
// the rank waits. One per rank; used by the rank's thread alone.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/tensor/arena.h"
#include "parallel/board.h"

namespace moebius {

class OperationObserver;

struct WaitOptions {
  // How long a rank waits for others before it gives up. Longer than any rank may be busy alone
  // (writing a checkpoint).
  std::chrono::milliseconds deadline = std::chrono::minutes(10);

  // Called on the thread of the rank that noticed; when it returns the process ends (EndProcess)
  // with exit code 1, and with it all ranks that are its threads. mpirun and srun end the others.
  std::function<void(const std::string& sentence)> on_failure = nullptr;

  // Whether this process has been asked to stop. That alone fails nothing: what can go on goes on.
  // But it may be the end of a job that has lost a rank, and mpirun leaves one second then: so a
  // rank that waits looks every 100 ms whether all others still run.
  std::function<bool()> stop_requested = nullptr;

  // Called on the thread of a rank, in a wait that goes on 0.5 s after that request, with who is
  // missing: it may be the last that the rank can say, where those who are gone were on other
  // hosts. The wait goes on; in this or another one it is called again when ten times as long has
  // passed since the request.
  std::function<void(int rank, const std::string& sentence)> on_stuck = nullptr;

  // Called once on the thread of each rank, before it starts anything, with the board that it shows
  // its calls on: for what the process says when it ends (DescribeHistory). The board goes with
  // the ranks.
  std::function<void(int rank, std::weak_ptr<Board> board)> on_start = nullptr;

  // Who is told what a rank does; null: nobody. Called once on the thread of each rank, before it
  // starts anything. The observer outlives the rank's communicators.
  std::function<OperationObserver*(int rank)> observer_of = nullptr;
};

// An operation under way.
class Pending {
 public:
  virtual ~Pending() = default;

  virtual const Call& call() const = 0;
  virtual const std::string& group() const = 0;
  virtual std::string Title() const = 0;  // "group data, all-reduce 17 (4096 F32)"

  // Goes on as far as it can without waiting. True when done; an error if the ranks disagree.
  virtual absl::StatusOr<bool> Advance() = 0;

  // What the board says against ever finishing, if anything.
  virtual std::optional<std::string> Mismatch(const Board& board) const = 0;

  // The ranks of the world that have not started it; or if all have, those whose messages are
  // under way.
  virtual std::vector<int> Missing(const Board& board) const = 0;

  // The process is about to end, for this operation or another.
  virtual void Abandon() {}
};

// Told on the thread of the rank. Whatever the rank starts, polls or waits for, all that it has
// under way goes on, and any of it may be done by then.
class OperationObserver {
 public:
  virtual ~OperationObserver() = default;
  virtual void StartBegins(const Pending& operation) = 0;
  virtual void StartEnds() = 0;
  virtual void WaitBegins(const Pending& operation) = 0;  // also if it is done already
  virtual void WaitEnds() = 0;
  virtual void Done(const Pending& operation) = 0;
};

class Progress {
 public:
  Progress(int world_rank, std::shared_ptr<Board> board, WaitOptions options);

  int world_rank() const { return world_rank_; }
  Board& board() { return *board_; }
  int64_t NextOrder() { return ++order_; }

  // Group numbers: see MessageCommunicator::Split.
  int next_group() const { return next_group_; }
  void set_next_group(int group) { next_group_ = group; }

  // Memory for what is on the way. Steady steps take nothing new from the system.
  Arena& arena() { return arena_; }

  void Start(std::shared_ptr<Pending> operation);
  void Poll();  // lets every started operation go on; within one that goes on: nothing
  bool IsDone(const Pending& operation) const;
  void Wait(const Pending& operation);  // returns when it is done, or ends the process

 private:
  using Clock = std::chrono::steady_clock;

  void WaitUntilDone(const Pending& operation);
  bool IsStuck(Clock::time_point waits_since);
  void LookAtOthers(const Pending& operation, bool stopping);
  std::string WhoIsMissing(const Pending& operation) const;
  void Fail(const std::string& sentence) const;

  const int world_rank_;
  const std::shared_ptr<Board> board_;
  const WaitOptions options_;
  OperationObserver* const observer_;
  Arena arena_{"communication", kCpu};
  int64_t order_ = 0;
  int next_group_ = 0;
  std::vector<std::shared_ptr<Pending>> pending_;
  bool polling_ = false;
  std::optional<Clock::time_point> stopping_since_;  // asked to stop, as this rank noticed
  Clock::time_point next_told_;                      // that a wait is stuck
};

}  // namespace moebius
