#include "launcher/failure_report.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "parallel/wait_report.h"

namespace moebius {
namespace {

constexpr std::chrono::milliseconds kPatience(1500), kPause(10);

// Whether another process of this host, still running, has yet to write why it ends.
bool OthersAreBusy(const Board& board) {
  for (int r = 0; r < board.num_ranks(); ++r) {
    if (board.StateOf(r) == ProcessState::kRunning && !board.Look(r).reported) return true;
  }
  return false;
}

}  // namespace

void FailureReport::Add(int rank, std::weak_ptr<Board> board) {
  const std::lock_guard lock(mutex_);
  ranks_.emplace_back(rank, std::move(board));
}

void FailureReport::Write(const std::string& sentence, int exit_code) {
  const std::lock_guard lock(mutex_);
  for (const Rank& rank : ranks_) WriteLog(rank, "failed: " + sentence);  // waits for no disk
  RecordFailure(paths_, sentence, exit_code);
  WaitForOthers();
}

void FailureReport::WriteStuck(int rank, const std::string& sentence) {
  const std::string line = "asked to stop, but " + sentence;
  std::fprintf(stderr, "moebius: %s\n", line.c_str());
  const std::lock_guard lock(mutex_);
  for (const Rank& own : ranks_) {
    if (own.first == rank) WriteLog(own, line);
  }
}

void FailureReport::WaitForOthers() const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + kPatience;
  for (const auto& [rank, of_rank] : ranks_) {
    const std::shared_ptr<Board> board = of_rank.lock();
    if (board == nullptr) continue;
    board->SetReported(rank);
    while (OthersAreBusy(*board) && Clock::now() < end) std::this_thread::sleep_for(kPause);
  }
}

// In one piece: the process may be killed at any time.
void FailureReport::WriteLog(const Rank& rank, const std::string& line) const {
  const auto log = RunLog::Open(paths_.log(rank.first));
  if (!log.ok()) return;  // the line is printed, too
  std::string text = line;
  if (const std::shared_ptr<const Board> board = rank.second.lock()) {
    for (const std::string& each : DescribeHistory(*board, rank.first)) {
      absl::StrAppend(&text, "\n", each);
    }
  }
  (*log)->Line(text);
}

}  // namespace moebius
