#include "parallel/board.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace moebius {
namespace {

Call AllReduce(int64_t sequence, int64_t order, int64_t count = 8) {
  return {.collective = Collective::kAllReduce,
          .dtype = DType::kF32,
          .count = count,
          .bytes = 4 * count,
          .sequence = sequence,
          .order = order};
}

Call Receive(int from, int64_t sequence, int64_t order) {
  return {.collective = Collective::kReceive,
          .dtype = DType::kBF16,
          .root = from,
          .count = 3,
          .bytes = 6,
          .sequence = sequence,
          .order = order};
}

TEST(Call, ReadsAsASentenceSaysIt) {
  EXPECT_EQ(AllReduce(17, 1, 4096).ToString(), "all-reduce 17 (4096 F32)");
  EXPECT_EQ(Receive(3, 5, 1).ToString(), "receive 5 (3 BF16 from rank 3)");
  EXPECT_EQ((Call{.collective = Collective::kBarrier, .sequence = 2}).ToString(), "barrier 2");
}

TEST(Board, ShowsNothingAtFirst) {
  const auto board = Board::InMemory(2);
  EXPECT_EQ(board->num_ranks(), 2);
  EXPECT_EQ(board->Latest(1, 0), 0);
  EXPECT_FALSE(board->At(1, 0, 1));
  EXPECT_TRUE(board->Look(1).has_page);
  EXPECT_FALSE(board->Look(1).last);
  EXPECT_TRUE(board->History(1).empty());
}

TEST(Board, FindsCollectivesByNumberAndMessagesOnlyInTheHistory) {
  const auto board = Board::InMemory(1);
  board->Publish(0, 0, "world", AllReduce(1, 1, 8));
  board->Publish(0, 7, "pipeline", Receive(3, 2, 2));
  board->Publish(0, 0, "world", AllReduce(2, 3, 16));
  EXPECT_EQ(board->Latest(0, 0), 2);
  EXPECT_EQ(board->Latest(0, 7), 0);
  ASSERT_TRUE(board->At(0, 0, 1));
  EXPECT_EQ(board->At(0, 0, 1)->count, 8);
  EXPECT_EQ(board->At(0, 0, 2)->count, 16);
  EXPECT_FALSE(board->At(0, 0, 3));
  EXPECT_FALSE(board->At(0, 7, 2));

  const std::vector<ShownCall> history = board->History(0);
  ASSERT_EQ(history.size(), 3u);
  EXPECT_EQ(history[1].group, "pipeline");
  EXPECT_EQ(history[1].call.ToString(), "receive 2 (3 BF16 from rank 3)");
  EXPECT_EQ(history[1].call.bytes, 6);
}

TEST(Board, ShowsTheCallThatIsWaitedForRatherThanTheLast) {
  const auto board = Board::InMemory(1);
  const Call first = AllReduce(1, 1), second = AllReduce(2, 2);
  board->Publish(0, 0, "world", first);
  board->Publish(0, 0, "world", second);
  EXPECT_EQ(board->Look(0).last->call.sequence, 2);
  board->SetWaiting(0, first);
  EXPECT_EQ(board->Look(0).last->call.sequence, 1);
  EXPECT_EQ(board->Look(0).last->state, CallState::kWaiting);
  board->SetDone(0, first);
  EXPECT_EQ(board->Look(0).last->call.sequence, 2);
  EXPECT_EQ(board->Look(0).last->state, CallState::kStarted);
  EXPECT_EQ(board->History(0)[0].state, CallState::kDone);
  EXPECT_GE(board->History(0)[0].done_ns, board->History(0)[0].started_ns);
}

TEST(Board, RemembersTheLastCalls) {
  const auto board = Board::InMemory(1);
  for (int i = 1; i <= 3 * Board::kHistory + 1; ++i) board->Publish(0, 0, "world", AllReduce(i, i));
  const std::vector<ShownCall> history = board->History(0);
  ASSERT_EQ(history.size(), static_cast<size_t>(Board::kHistory));
  EXPECT_EQ(history.front().call.sequence, 2 * Board::kHistory + 2);
  EXPECT_EQ(history.back().call.sequence, 3 * Board::kHistory + 1);
  EXPECT_FALSE(board->At(0, 0, 1));
  board->SetDone(0, AllReduce(1, 1));  // forgotten: it changes no other
  for (const ShownCall& shown : board->History(0)) EXPECT_EQ(shown.state, CallState::kStarted);
}

// Whatever a reader finds is one call, never parts of two: here all its numbers are the same.
TEST(Board, IsReadWhileItIsWritten) {
  const auto board = Board::InMemory(1);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int64_t i = 1; !stop; ++i) {
      board->Publish(0, 0, "world", AllReduce(i, i, i));
      board->SetWaiting(0, AllReduce(i, i, i));
      board->SetDone(0, AllReduce(i, i, i));
    }
  });
  while (board->Latest(0, 0) < Board::kHistory) std::this_thread::yield();
  size_t seen = 0, torn = 0;
  for (int round = 0; round < 2000; ++round) {
    for (const ShownCall& shown : board->History(0)) {
      const int64_t number = shown.call.order;
      ++seen;
      torn += shown.call.sequence != number || shown.call.count != number ||
              shown.call.bytes != 4 * number;
    }
  }
  stop = true;
  writer.join();
  EXPECT_GT(seen, 0u);
  EXPECT_EQ(torn, 0u);
}

TEST(FileBoard, IsSeenByTheOtherRanksOfTheRunAlone) {
  const std::string folder = testing::TempDir() + "/board";
  const std::vector<ProcessId> processes(2, ThisProcess());
  auto own = Board::InFiles(folder, 0, 1, processes),
       other = Board::InFiles(folder, 1, 1, processes);
  ASSERT_TRUE(own.ok() && other.ok());
  (*own)->Publish(0, 3, "data", AllReduce(4, 1));
  (*own)->SetWaitsFor(0, 1);
  (*own)->SetFailed(0);
  const RankSight sight = (*other)->Look(0);
  ASSERT_TRUE(sight.last);
  EXPECT_EQ(sight.last->group, "data");
  EXPECT_EQ(sight.last->call.sequence, 4);
  EXPECT_EQ(sight.waits_for, 1);
  EXPECT_TRUE(sight.failed);
  EXPECT_FALSE(sight.reported);
  (*own)->SetReported(0);
  EXPECT_TRUE((*other)->Look(0).reported);
  EXPECT_EQ((*other)->Latest(0, 3), 4);
  EXPECT_EQ((*other)->StateOf(0), ProcessState::kRunning);

  auto later = Board::InFiles(folder, 1, 2, processes);
  ASSERT_TRUE(later.ok());
  EXPECT_FALSE((*later)->Look(0).has_page);
}

}  // namespace
}  // namespace moebius
