#include "parallel/progress.h"

#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "core/base/check.h"
#include "parallel/wait_report.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

// Waits are mostly short: the other ranks compute the same thing. So first stay on the core, then
// offer it to ranks that share it, and leave it for good when the wait is long.
class Patience {
 public:
  void Wait(Clock::duration waited) {
    if (++rounds_ < kSpins) return;
    if (waited < std::chrono::milliseconds(2)) {
      ::sched_yield();
    } else {
      std::this_thread::sleep_for(waited < std::chrono::milliseconds(50)
                                      ? std::chrono::microseconds(50)
                                      : std::chrono::microseconds(500));
    }
  }

 private:
  static constexpr int kSpins = 64;
  int rounds_ = 0;
};

// When a rank that waits looks at the others: seldom, as reading a board may be slow; often once
// the process was asked to stop.
class LookTimes {
 public:
  bool IsDue(Clock::duration waited, bool stopping) {
    if (waited < (stopping ? std::min(next_, last_ + kHurry) : next_)) return false;
    last_ = waited;
    next_ = 2 * waited;
    return true;
  }

 private:
  static constexpr std::chrono::milliseconds kFirst{50}, kHurry{100};
  Clock::duration last_ = Clock::duration::zero();
  Clock::duration next_ = kFirst;
};

// A rank of the world whose process has ended.
std::optional<int> EndedRank(const Board& board) {
  for (int r = 0; r < board.num_ranks(); ++r) {
    if (board.StateOf(r) == ProcessState::kEnded) return r;
  }
  return std::nullopt;
}

}  // namespace

Progress::Progress(int world_rank, std::shared_ptr<Board> board, WaitOptions options)
    : world_rank_(world_rank),
      board_(std::move(board)),
      options_(std::move(options)),
      observer_(options_.observer_of == nullptr ? nullptr : options_.observer_of(world_rank)) {
  if (options_.on_start != nullptr) options_.on_start(world_rank_, board_);
}

void Progress::Start(std::shared_ptr<Pending> operation) {
  if (observer_ != nullptr) observer_->StartBegins(*operation);
  pending_.push_back(std::move(operation));
  Poll();
  if (observer_ != nullptr) observer_->StartEnds();
}

void Progress::Poll() {
  if (std::exchange(polling_, true)) return;
  const absl::Cleanup ends = [this] { polling_ = false; };
  for (size_t i = 0; i < pending_.size();) {
    const absl::StatusOr<bool> done = pending_[i]->Advance();
    if (!done.ok()) {
      Fail(pending_[i]->Mismatch(*board_).value_or(std::string(done.status().message())));
    }
    if (*done) {
      board_->SetDone(world_rank_, pending_[i]->call());
      if (observer_ != nullptr) observer_->Done(*pending_[i]);
      pending_.erase(pending_.begin() + static_cast<int64_t>(i));
    } else {
      ++i;
    }
  }
}

bool Progress::IsDone(const Pending& operation) const {
  return std::ranges::none_of(pending_, [&](const auto& p) { return p.get() == &operation; });
}

void Progress::Wait(const Pending& operation) {
  if (observer_ != nullptr) observer_->WaitBegins(operation);
  WaitUntilDone(operation);
  if (observer_ != nullptr) observer_->WaitEnds();
}

void Progress::WaitUntilDone(const Pending& operation) {
  Poll();
  if (IsDone(operation)) return;
  board_->SetWaiting(world_rank_, operation.call());
  const Clock::time_point start = Clock::now();
  LookTimes look_times;
  Patience patience;
  for (; !IsDone(operation); Poll()) {
    const Clock::duration waited = Clock::now() - start;
    const bool stopping = options_.stop_requested != nullptr && options_.stop_requested();
    if (look_times.IsDue(waited, stopping)) LookAtOthers(operation, stopping);
    if (stopping && options_.on_stuck != nullptr && IsStuck(start)) {
      options_.on_stuck(world_rank_, WhoIsMissing(operation));
    }
    if (waited >= options_.deadline) {
      Fail(absl::StrFormat("%s; the deadline is %.1f s", WhoIsMissing(operation),
                           std::chrono::duration<double>(options_.deadline).count()));
    }
    patience.Wait(waited);
  }
  board_->SetWaitsFor(world_rank_, std::nullopt);
}

bool Progress::IsStuck(Clock::time_point waits_since) {
  constexpr std::chrono::milliseconds kStuck(500);
  const Clock::time_point now = Clock::now();
  if (!stopping_since_) stopping_since_ = now;
  if (now < std::max(waits_since, *stopping_since_) + kStuck || now < next_told_) return false;
  next_told_ = now + 9 * (now - *stopping_since_);
  return true;
}

// Ends the process if the operation can never be done.
void Progress::LookAtOthers(const Pending& operation, bool stopping) {
  const WaitReport report(*board_, world_rank_, operation.Missing(*board_));
  if (!report.missing().empty()) board_->SetWaitsFor(world_rank_, report.missing()[0]);
  if (const auto mismatch = operation.Mismatch(*board_)) Fail(*mismatch);
  std::optional<int> lost = report.lost();
  if (!lost && stopping) lost = EndedRank(*board_);
  if (!lost) return;
  Poll();  // what it sent before may have come meanwhile
  if (!IsDone(operation)) Fail(report.Sentence(operation.Title(), lost));
}

std::string Progress::WhoIsMissing(const Pending& operation) const {
  const WaitReport report(*board_, world_rank_, operation.Missing(*board_));
  return report.Sentence(operation.Title());
}

void Progress::Fail(const std::string& sentence) const {
  if (options_.on_failure != nullptr) options_.on_failure(sentence);
  board_->SetFailed(world_rank_);
  for (const auto& operation : pending_) operation->Abandon();
  EndProcess(sentence, 1);
}

}  // namespace moebius
