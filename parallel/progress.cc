#include "parallel/progress.h"

#include <sched.h>

#include <algorithm>
#include <thread>

#include "core/base/check.h"

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

}  // namespace

Progress::Progress(int world_rank, Board* board, WaitOptions options)
    : world_rank_(world_rank), board_(board), options_(std::move(options)) {}

void Progress::Start(std::shared_ptr<Pending> operation) {
  pending_.push_back(std::move(operation));
  Poll();
}

void Progress::Poll() {
  for (size_t i = 0; i < pending_.size();) {
    const absl::StatusOr<bool> done = pending_[i]->Advance();
    if (!done.ok()) {
      Fail(pending_[i]->Mismatch(*board_).value_or(std::string(done.status().message())));
    }
    if (*done) {
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
  const Clock::time_point start = Clock::now();
  Clock::duration next_look = std::chrono::milliseconds(50);
  Patience patience;
  for (Poll(); !IsDone(operation); Poll()) {
    const Clock::duration waited = Clock::now() - start;
    if (waited >= next_look) {
      next_look *= 2;
      if (const auto mismatch = operation.Mismatch(*board_)) Fail(*mismatch);
    }
    if (waited >= options_.deadline) {
      Fail(absl::StrFormat("%s; the deadline is %.1f s", operation.WhoIsMissing(*board_),
                           std::chrono::duration<double>(options_.deadline).count()));
    }
    patience.Wait(waited);
  }
}

void Progress::Fail(const std::string& sentence) const {
  if (options_.on_failure != nullptr) options_.on_failure(sentence);
  EndProcess(sentence, 1);
}

}  // namespace moebius
