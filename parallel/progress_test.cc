#include "parallel/progress.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// An all-reduce of rank 0 that waits for rank 1 until a moment.
class WaitForRank1 final : public Pending {
 public:
  explicit WaitForRank1(Clock::duration takes) : done_at_(Clock::now() + takes) {}

  const Call& call() const override { return call_; }
  const std::string& group() const override { return group_; }
  std::string Title() const override { return "group data, " + call_.ToString(); }
  absl::StatusOr<bool> Advance() override { return Clock::now() >= done_at_; }
  std::optional<std::string> Mismatch(const Board&) const override { return std::nullopt; }
  std::vector<int> Missing(const Board&) const override { return {1}; }

 private:
  const Clock::time_point done_at_;
  const std::string group_ = "data";
  const Call call_ = {.collective = Collective::kAllReduce,
                      .dtype = DType::kF32,
                      .count = 8,
                      .bytes = 32,
                      .sequence = 3,
                      .order = 3};
};

// Three ranks as processes of this host; `ended` is gone. Rank 0 waits for rank 1.
class Waits : public testing::Test {
 protected:
  // The sentence with which a wait fails, or "".
  std::string Wait(std::optional<int> ended, bool stop_requested, milliseconds takes,
                   milliseconds deadline, int num_waits = 1) {
    std::vector<ProcessId> processes(3, ThisProcess());
    if (ended) --processes[*ended].start;
    const std::string folder = testing::TempDir() + "/waits";
    auto own = Board::InFiles(folder, 0, 1, processes);
    EXPECT_TRUE(own.ok()) << own.status();
    board_ = *std::move(own);
    Progress progress(0, board_,
                      {.deadline = deadline,
                       .on_failure = [](const auto& text) { throw std::runtime_error(text); },
                       .stop_requested = [=] { return stop_requested; },
                       .on_stuck = [&](int, const std::string& text) { stuck_.push_back(text); },
                       .on_start =
                           [&](int rank, std::weak_ptr<Board> board) {
                             EXPECT_EQ(rank, 0);
                             EXPECT_EQ(board.lock(), board_);
                             ++num_starts_;
                           }});
    EXPECT_EQ(std::exchange(num_starts_, 0), 1);
    for (int i = 0; i < num_waits; ++i) {
      const auto operation = std::make_shared<WaitForRank1>(takes);
      board_->Publish(0, 0, "data", operation->call());
      progress.Start(operation);
      try {
        progress.Wait(*operation);
      } catch (const std::runtime_error& failure) {
        return failure.what();
      }
    }
    return "";
  }

  std::shared_ptr<Board> board_;
  int num_starts_ = 0;
  std::vector<std::string> stuck_;
};

constexpr std::chrono::minutes kLong(10);

TEST_F(Waits, EndAtOnceForAProcessThatHasEnded) {
  EXPECT_EQ(Wait(1, false, kLong, kLong),
            "group data, all-reduce 3 (8 F32): rank 0 waits for rank 1, whose process has ended; "
            "rank 1 has shown nothing");
  EXPECT_EQ(board_->Look(0).waits_for, 1);
  EXPECT_EQ(board_->History(0).at(0).state, CallState::kWaiting);
}

// A job that has lost a rank ends. What this rank waits for is told first.
TEST_F(Waits, EndForAnyProcessOnceAskedToStop) {
  EXPECT_EQ(Wait(2, true, kLong, kLong),
            "group data, all-reduce 3 (8 F32): rank 0 waits for rank 1; rank 1 has shown nothing; "
            "meanwhile: rank 2, whose process has ended; rank 2 has shown nothing");
}

TEST_F(Waits, GoOnWhenAskedToStopWhileAllRun) {
  EXPECT_EQ(Wait(std::nullopt, true, milliseconds(2500), kLong), "");
  EXPECT_EQ(stuck_, std::vector<std::string>{"group data, all-reduce 3 (8 F32): rank 0 waits for "
                                             "rank 1; rank 1 has shown nothing"});
  EXPECT_FALSE(board_->Look(0).waits_for);
  EXPECT_EQ(board_->History(0).at(0).state, CallState::kDone);
}

TEST_F(Waits, TellSeldomThatTheyAreStuck) {
  EXPECT_EQ(Wait(std::nullopt, true, milliseconds(700), kLong, /*num_waits=*/3), "");
  EXPECT_EQ(stuck_.size(), 1u);
}

TEST_F(Waits, GoOnWithoutAProcessThatNobodyWaitsFor) {
  EXPECT_EQ(Wait(2, false, milliseconds(1500), kLong), "");
  EXPECT_TRUE(stuck_.empty());
}

TEST_F(Waits, EndAtTheDeadline) {
  EXPECT_EQ(Wait(std::nullopt, false, kLong, milliseconds(300)),
            "group data, all-reduce 3 (8 F32): rank 0 waits for rank 1; rank 1 has shown nothing; "
            "the deadline is 0.3 s");
}

// What an observer is told, in order.
class Log final : public OperationObserver {
 public:
  void StartBegins(const Pending& operation) override { Add("start", operation); }
  void StartEnds() override { lines.emplace_back("started"); }
  void WaitBegins(const Pending& operation) override { Add("wait", operation); }
  void WaitEnds() override { lines.emplace_back("waited"); }
  void Done(const Pending& operation) override { Add("done", operation); }

  std::vector<std::string> lines;

 private:
  void Add(const char* what, const Pending& operation) {
    lines.push_back(absl::StrCat(what, " ", operation.group(), " ", operation.call().sequence));
  }
};

TEST(Progress, TellsItsObserverWhatTheRankDoes) {
  Log log;
  const std::shared_ptr<Board> board = Board::InMemory(2);
  Progress progress(1, board,
                    {.observer_of = [&](int rank) { return rank == 1 ? &log : nullptr; }});
  const auto slow = std::make_shared<WaitForRank1>(milliseconds(50));
  const auto quick = std::make_shared<WaitForRank1>(milliseconds(0));
  for (const auto& operation : {slow, quick}) {
    board->Publish(1, 0, "data", operation->call());
    progress.Start(operation);
  }
  progress.Wait(*quick);
  progress.Wait(*slow);
  EXPECT_EQ(log.lines, (std::vector<std::string>{"start data 3", "started", "start data 3",
                                                 "done data 3", "started", "wait data 3", "waited",
                                                 "wait data 3", "done data 3", "waited"}));
}

}  // namespace
}  // namespace moebius
