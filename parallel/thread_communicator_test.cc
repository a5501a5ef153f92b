#include "parallel/thread_communicator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "core/base/status.h"
#include "parallel/collective_checks.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;

class ThreadRanks : public testing::TestWithParam<int> {};

TEST_P(ThreadRanks, Reductions) { RunOnThreads(GetParam(), CheckReductions); }
TEST_P(ThreadRanks, LongReductions) { RunOnThreads(GetParam(), CheckLongReductions); }
TEST_P(ThreadRanks, Gathers) { RunOnThreads(GetParam(), CheckGathers); }
TEST_P(ThreadRanks, AllToAllV) { RunOnThreads(GetParam(), CheckAllToAllV); }
TEST_P(ThreadRanks, PointToPoint) { RunOnThreads(GetParam(), CheckPointToPoint); }
TEST_P(ThreadRanks, Splits) { RunOnThreads(GetParam(), CheckSplits); }
TEST_P(ThreadRanks, ManyUnderWay) { RunOnThreads(GetParam(), CheckManyUnderWay); }
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadRanks, testing::Values(1, 2, 3, 4, 5));

TEST(ThreadRanks, BarrierHoldsUntilAllHaveCome) {
  std::atomic<int> come = 0;
  RunOnThreads(3, [&](Communicator& world) {
    std::this_thread::sleep_for(milliseconds(10 * world.rank()));
    ++come;
    world.Barrier().Wait();
    EXPECT_EQ(come, 3);
  });
}

// More ranks than cores must not make small operations crawl: with a spinning wait this takes
// minutes.
TEST(ThreadRanks, ManyRanksShareFewCores) {
  RunOnThreads(8, [&](Communicator& world) {
    for (int i = 0; i < 200; ++i) {
      std::vector<float> x(10, 1);
      world.AllReduce(std::span(x)).Wait();
      ASSERT_EQ(x[9], 8);
    }
  });
}

// Ends a rank's wait by an exception, in place of the process.
WaitOptions Throwing(milliseconds deadline) {
  return {.deadline = deadline,
          .on_failure = [](const std::string& sentence) { throw std::runtime_error(sentence); }};
}

// The sentence with which `call` fails, or "".
template <class Call>
std::string FailureOf(const Call& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Failure, NamesTheMissingRankWithinTheDeadline) {
  RunOnThreads(3, Throwing(milliseconds(1000)), [](Communicator& world) {
    world.Barrier().Wait();
    if (world.rank() == 1) return;  // never comes
    const auto start = std::chrono::steady_clock::now();
    std::vector<float> x(5);
    EXPECT_EQ(FailureOf([&] { world.AllReduce(std::span(x)).Wait(); }),
              absl::StrCat("group world, all-reduce 2 (5 F32): rank ", world.rank(),
                           " waits for rank 1; rank 1 last started barrier 1 of group world; "
                           "the deadline is 1.0 s"));
    EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(1000 + 2000));
  });
}

// Rank 1 starts before rank 0 has sent anything, and then lets nothing go on.
TEST(Failure, NamesTheRankThatStoppedOnTheWay) {
  std::vector<std::vector<float>> values(2, std::vector<float>(10'000));
  std::atomic<bool> started = false, named = false;
  RunOnThreads(2, Throwing(milliseconds(200)), [&](Communicator& world) {
    while (world.rank() == 0 && !started) std::this_thread::yield();
    Handle handle = world.AllReduce(std::span(values[world.rank()]));
    if (world.rank() == 1) {
      started = true;
      while (!named) std::this_thread::yield();
    }
    const std::string failure = FailureOf([&] { handle.Wait(); });
    named = true;
    if (world.rank() == 1) return;
    EXPECT_NE(failure.find("waits for rank 1;"), failure.npos) << failure;
  });
}

TEST(Failure, NamesWhoCallsSomethingElse) {
  RunOnThreads(2, Throwing(std::chrono::minutes(1)), [](Communicator& world) {
    std::vector<float> x(5 + world.rank());
    EXPECT_EQ(
        FailureOf([&] { world.AllReduce(std::span(x)).Wait(); }),
        absl::StrFormat("group world: rank %d calls all-reduce 1 (%d F32) where rank %d calls "
                        "all-reduce 1 (%d F32): all ranks of a group must call the same "
                        "operations in one order",
                        world.rank(), 5 + world.rank(), 1 - world.rank(), 6 - world.rank()));
  });
  RunOnThreads(2, Throwing(std::chrono::minutes(1)), [](Communicator& world) {
    std::vector<float> x(5);
    if (world.rank() == 0) {
      EXPECT_EQ(FailureOf([&] { world.AllReduce(std::span(x)).Wait(); }),
                "group world: rank 0 calls all-reduce 1 (5 F32) where rank 1 calls all-reduce "
                "(maximum) 1 (5 F32): all ranks of a group must call the same operations in one "
                "order");
    } else {
      EXPECT_NE(FailureOf([&] { world.AllReduceMax(std::span(x)).Wait(); }), "");
    }
  });
}

TEST(Failure, NamesASkippedOperation) {
  RunOnThreads(2, Throwing(std::chrono::minutes(1)), [](Communicator& world) {
    std::vector<float> x(5);
    const std::string failure = FailureOf([&] {
      if (world.rank() == 0) world.AllReduce(std::span(x)).Wait();
      world.Broadcast(std::span(x), 0).Wait();
      world.Barrier().Wait();
    });
    EXPECT_NE(failure.find("calls broadcast 1 (5 F32 from 0)"), failure.npos) << failure;
  });
}

TEST(Failure, NamesPartsThatDoNotFit) {
  std::vector<std::vector<float>> values(2, std::vector<float>(8));
  RunOnThreads(2, Throwing(milliseconds(1000)), [&](Communicator& world) {
    std::vector<float>&send = values[world.rank()], receive(8);
    const std::vector<int32_t> to = {2, 2}, from = {2, world.rank() == 0 ? 3 : 2};
    const std::string failure = FailureOf([&] {
      world.AllToAllV({std::span(send), to}, {std::span(receive), from}, 1).Wait();
    });
    if (world.rank() == 0) {
      EXPECT_EQ(failure,
                "group world, all-to-all 1 (1 F32 a row): rank 0 and rank 1: 8 bytes were sent "
                "where 12 are expected");
    }
  });
}

TEST(FailureDeathTest, EndsTheProcessWithCode1) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto run = [] {
    RunOnThreads(2, {.deadline = milliseconds(100)}, [](Communicator& world) {
      if (world.rank() == 0) world.Barrier().Wait();
      std::this_thread::sleep_for(std::chrono::minutes(1));
    });
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(1),
              "barrier 1: rank 0 waits for rank 1; rank 1 has started nothing");
}

TEST(HandleDeathTest, MustBeWaitedFor) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(RunOnThreads(1, [](Communicator& world) { (void)world.Barrier(); }),
               "not waited for");
}

}  // namespace
}  // namespace moebius
