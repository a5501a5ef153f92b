#include "launcher/core_shares.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

using Cores = std::vector<int>;

const Cores kTwo = {0, 1};
const Cores kEight = {0, 1, 2, 3, 4, 5, 6, 7};

void ExpectCores(const RankCores& actual, int num_threads, const Cores& cores) {
  EXPECT_EQ(actual.num_threads, num_threads);
  EXPECT_EQ(actual.cores, cores);
}

// Rank `index` of `count` that are threads of one process.
RankCores Thread(int index, int count, const Cores& allowed, int threads_per_rank = 0) {
  return CoresOf({.index = index, .count = count, .bound = false}, allowed,
                 static_cast<int>(allowed.size()), threads_per_rank);
}

TEST(CoresOf, ARankAloneHasAll) {
  ExpectCores(Thread(0, 1, kEight), 8, kEight);
  ExpectCores(Thread(0, 1, kEight, 3), 3, {0, 1, 2});
  ExpectCores(Thread(0, 1, {5}), 1, {5});
}

TEST(CoresOf, EqualParts) {
  ExpectCores(Thread(0, 2, kTwo), 1, {0});
  ExpectCores(Thread(1, 2, kTwo), 1, {1});
  ExpectCores(Thread(1, 2, kEight), 4, {4, 5, 6, 7});
  ExpectCores(Thread(1, 3, kEight), 2, {2, 3});  // cores 6 and 7 are nobody's
  ExpectCores(Thread(2, 3, kEight), 2, {4, 5});
  ExpectCores(Thread(1, 2, {3, 9, 17, 40}), 2, {17, 40});  // a process's own choice of cores
}

TEST(CoresOf, FewerThreadsThanCoresTakeTheFirstOfThePart) {
  ExpectCores(Thread(0, 2, kEight, 3), 3, {0, 1, 2});
  ExpectCores(Thread(1, 2, kEight, 3), 3, {4, 5, 6});
}

TEST(CoresOf, TooFewCoresAreNotPinned) {
  for (int rank = 0; rank < 3; ++rank) ExpectCores(Thread(rank, 3, kTwo), 1, {});
  ExpectCores(Thread(1, 2, kEight, 5), 5, {});
  ExpectCores(Thread(0, 1, kTwo, 3), 3, {});
  ExpectCores(Thread(1, 2, {}), 1, {});  // the system did not say which
}

TEST(CoresOf, ABoundRankHasAllThatItMayRunOn) {
  const HostRank second{.index = 1, .count = 2, .bound = true};
  ExpectCores(CoresOf(second, {4, 5, 6, 7}, 8, 0), 4, {4, 5, 6, 7});
  ExpectCores(CoresOf(second, {4, 5, 6, 7}, 8, 2), 2, {4, 5});
  ExpectCores(CoresOf(second, {4}, 8, 2), 2, {});
  ExpectCores(CoresOf(second, kEight, 8, 0), 8, kEight);
}

TEST(CoresOf, AnUnboundRankSharesEvenIfAllWouldFit) {
  ExpectCores(CoresOf({.index = 1, .count = 2, .bound = false}, {4, 5}, 8, 0), 1, {5});
}

TEST(CoresOf, ASilentLauncherIsBelievedToHaveBoundRanksThatFit) {
  const HostRank second{.index = 1, .count = 2};
  ExpectCores(CoresOf(second, {4, 5, 6, 7}, 8, 0), 4, {4, 5, 6, 7});
  ExpectCores(CoresOf(second, kEight, 8, 0), 4, {4, 5, 6, 7});
  ExpectCores(CoresOf({.index = 0, .count = 1}, kEight, 8, 0), 8, kEight);
}

TEST(TasksOnNode, CountsRepeats) {
  EXPECT_EQ(TasksOnNode("4", 0), 4);
  EXPECT_EQ(TasksOnNode("2(x3),1", 0), 2);
  EXPECT_EQ(TasksOnNode("2(x3),1", 2), 2);
  EXPECT_EQ(TasksOnNode("2(x3),1", 3), 1);
  EXPECT_EQ(TasksOnNode("1,16(x2),8", 2), 16);
}

TEST(TasksOnNode, NothingForWhatIsNotThere) {
  EXPECT_EQ(TasksOnNode("2(x3),1", 4), std::nullopt);
  for (const char* wrong : {"", "x", "2(x", "2(x)", "2(y3)", "(x3)", "0", "2(x0)", "2,,1"}) {
    EXPECT_EQ(TasksOnNode(wrong, 1), std::nullopt) << wrong;
  }
}

}  // namespace
}  // namespace moebius
