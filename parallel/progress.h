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

struct WaitOptions {
  // How long a rank waits for others before it gives up. Longer than any rank may be busy alone
  // (writing a checkpoint).
  std::chrono::milliseconds deadline = std::chrono::minutes(10);

  // Called on the thread of the rank that noticed; when it returns the process ends (EndProcess)
  // with exit code 1, and with it all ranks that are its threads. mpirun and srun end the others.
  std::function<void(const std::string& sentence)> on_failure = nullptr;
};

// An operation under way.
class Pending {
 public:
  virtual ~Pending() = default;

  // Goes on as far as it can without waiting. True when done; an error if the ranks disagree.
  virtual absl::StatusOr<bool> Advance() = 0;

  // What the board says against ever finishing, if anything.
  virtual std::optional<std::string> Mismatch(const Board& board) const = 0;

  // "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2 (last started ...)".
  virtual std::string WhoIsMissing(const Board& board) const = 0;
};

class Progress {
 public:
  // `board` outlives this.
  Progress(int world_rank, Board* board, WaitOptions options);

  int world_rank() const { return world_rank_; }
  Board& board() { return *board_; }
  int64_t NextOrder() { return ++order_; }

  // Group numbers: see MessageCommunicator::Split.
  int next_group() const { return next_group_; }
  void set_next_group(int group) { next_group_ = group; }

  // Memory for what is on the way. Steady steps take nothing new from the system.
  Arena& arena() { return arena_; }

  void Start(std::shared_ptr<Pending> operation);
  void Poll();  // lets every started operation go on
  bool IsDone(const Pending& operation) const;
  void Wait(const Pending& operation);  // returns when it is done, or ends the process

 private:
  void Fail(const std::string& sentence) const;

  const int world_rank_;
  Board* const board_;
  const WaitOptions options_;
  Arena arena_{"communication", kCpu};
  int64_t order_ = 0;
  int next_group_ = 0;
  std::vector<std::shared_ptr<Pending>> pending_;
};

}  // namespace moebius
