// What a process of a training leaves in the run directory when it cannot go on (docs/faults.md).
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "parallel/board.h"
#include "train/run_directory/run_directory.h"

namespace moebius {

// Thread-safe.
class FailureReport {
 public:
  explicit FailureReport(RunPaths paths) : paths_(std::move(paths)) {}

  // A rank of this process (WaitOptions::on_start).
  void Add(int rank, std::weak_ptr<Board> board);

  // The last words of the process (SetLastWords). In the log of each of its ranks: the sentence and
  // the rank's last operations; in status.json: the sentence, unless another rank was first. Then
  // waits, for 1.5 s at most, until the other processes of this host have done the same: mpirun
  // gives those that are left two seconds after a failure, but cuts that short with each exit.
  void Write(const std::string& sentence, int exit_code);

  // The same in the log of one rank, which may yet go on (WaitOptions::on_stuck). Printed, too.
  void WriteStuck(int rank, const std::string& sentence);

 private:
  using Rank = std::pair<int, std::weak_ptr<Board>>;

  void WriteLog(const Rank& rank, const std::string& line) const;
  void WaitForOthers() const;

  const RunPaths paths_;
  std::mutex mutex_;
  std::vector<Rank> ranks_;
};

}  // namespace moebius
