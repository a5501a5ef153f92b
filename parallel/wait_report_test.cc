#include "parallel/wait_report.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace moebius {
namespace {

constexpr char kTitle[] = "group data, all-reduce 17 (4096 F32)";

// Rank 0 waits; what the others do is set by the test. Ranks are "processes" of this host that run
// (this one), or that have ended long ago.
class Reports : public testing::Test {
 protected:
  void Make(std::vector<int> ended, int num_ranks = 4) {
    std::vector<ProcessId> processes(num_ranks, ThisProcess());
    for (const int rank : ended) --processes[rank].start;
    const std::string folder = testing::TempDir() + "/reports";
    for (int r = 0; r < num_ranks; ++r) {
      auto board = Board::InFiles(folder, r, 1, processes);
      ASSERT_TRUE(board.ok()) << board.status();
      boards_.push_back(*std::move(board));
    }
  }

  // `rank` waits for `other`, or has only started a collective.
  void Show(int rank, const std::string& group, std::optional<int> other = std::nullopt) {
    const Call call{.collective = Collective::kAllReduce,
                    .dtype = DType::kF32,
                    .count = 8,
                    .sequence = 16,
                    .order = 16};
    boards_[rank]->Publish(rank, 1, group, call);
    if (!other) return;
    boards_[rank]->SetWaiting(rank, call);
    boards_[rank]->SetWaitsFor(rank, other);
  }

  WaitReport Report(std::vector<int> missing) { return {*boards_[0], 0, std::move(missing)}; }
  std::string Sentence(std::vector<int> missing) { return Report(missing).Sentence(kTitle); }

  std::vector<std::unique_ptr<Board>> boards_;
};

TEST_F(Reports, NameWhoIsMissingAndWhereItIs) {
  Make({});
  Show(2, "data");
  EXPECT_EQ(Sentence({2}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2; rank 2 last started "
            "all-reduce 16 (8 F32) of group data");
  EXPECT_EQ(Sentence({1, 3}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for ranks 1, 3; rank 1 has started "
            "nothing; rank 3 has started nothing");
  EXPECT_FALSE(Report({1, 2, 3}).lost());
}

TEST_F(Reports, NameTheProcessThatHasEnded) {
  Make({2});
  Show(2, "data");
  EXPECT_EQ(Sentence({2}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2, whose process has "
            "ended; rank 2 last started all-reduce 16 (8 F32) of group data");
  EXPECT_EQ(Report({2}).lost(), 2);
  EXPECT_EQ(Report({1, 2, 3}).missing(), std::vector<int>{2});
}

TEST_F(Reports, FollowRanksThatWaitForOthers) {
  Make({3});
  Show(1, "tensor", 2);
  Show(2, "pipeline", 3);
  EXPECT_EQ(Sentence({1}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 1; rank 1 waits in "
            "all-reduce 16 (8 F32) of group tensor for rank 2; rank 2 waits in all-reduce 16 (8 "
            "F32) of group pipeline for rank 3, whose process has ended; rank 3 has started "
            "nothing");
  EXPECT_EQ(Report({1}).lost(), 3);
  EXPECT_EQ(Report({1, 2}).missing(), std::vector<int>{2});
}

// Rank 1 has noticed first, and has ended for it: the culprit is still rank 2.
TEST_F(Reports, DoNotBlameWhoGaveUp) {
  Make({1});
  Show(1, "data", 2);
  boards_[1]->SetFailed(1);
  Show(2, "data");
  EXPECT_EQ(Report({1, 2}).missing(), std::vector<int>{2});
  EXPECT_EQ(Sentence({1}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 1, which gave up; rank 1 "
            "waited in all-reduce 16 (8 F32) of group data for rank 2; rank 2 last started "
            "all-reduce 16 (8 F32) of group data");
  EXPECT_EQ(Report({1}).lost(), 1);
  EXPECT_FALSE(Report({2}).lost());
  EXPECT_EQ(Report({2}).Sentence(kTitle, 1),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2; rank 2 last started "
            "all-reduce 16 (8 F32) of group data; meanwhile: rank 1, which gave up; rank 1 waited "
            "in all-reduce 16 (8 F32) of group data for rank 2");
}

TEST_F(Reports, NameWhoFailedByItself) {
  Make({});
  boards_[2]->SetReported(2);
  EXPECT_EQ(Sentence({2}),
            "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2, which failed; rank 2 "
            "has started nothing");
  EXPECT_EQ(Report({2}).lost(), 2);
}

// A killed rank had waited for one that waits for it: it is the one that never comes.
TEST_F(Reports, BlameTheDeadOfACircle) {
  Make({2});
  Show(1, "data", 2);
  Show(2, "data", 1);
  EXPECT_EQ(Report({1, 2}).missing(), std::vector<int>{2});
}

TEST_F(Reports, TellACircleOfTheLiving) {
  Make({});
  Show(1, "data", 2);
  Show(2, "data", 1);
  EXPECT_EQ(Report({1, 2}).missing(), (std::vector<int>{1, 2}));
  EXPECT_FALSE(Report({1, 2}).lost());
}

TEST_F(Reports, NameFewOfMany) {
  Make({}, 12);
  EXPECT_TRUE(absl::StrContains(Sentence({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
                                "waits for ranks 1, 2, 3, 4, 5, 6, 7, 8 ... 11;"));
}

TEST(History, HasALineForEachCall) {
  const auto board = Board::InMemory(1);
  const Call call{.collective = Collective::kAllReduce,
                  .dtype = DType::kF32,
                  .count = 8,
                  .bytes = 32,
                  .sequence = 1,
                  .order = 1};
  Call next = call;
  next.sequence = next.order = 2;
  board->Publish(0, 0, "data", call);
  board->SetDone(0, call);
  board->Publish(0, 0, "data", next);
  board->SetWaiting(0, next);
  const std::vector<std::string> lines = DescribeHistory(*board, 0);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "the last 2 operations of rank 0, oldest first:");
  for (const char* part : {"data", "all-reduce 1 (8 F32)", " 32 bytes", "done", "took"}) {
    EXPECT_TRUE(absl::StrContains(lines[1], part)) << part << " in " << lines[1];
  }
  for (const char* part : {"all-reduce 2 (8 F32)", "waiting", "s ago"}) {
    EXPECT_TRUE(absl::StrContains(lines[2], part)) << part << " in " << lines[2];
  }
  EXPECT_FALSE(absl::StrContains(lines[2], "took"));
}

}  // namespace
}  // namespace moebius
