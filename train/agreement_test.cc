#include "train/agreement.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

// What each rank gets when they report `own`, by rank. Twice in a row: a failure leaves the ranks
// in step.
std::vector<absl::Status> Agreed(const std::vector<absl::Status>& own) {
  std::vector<absl::Status> agreed(own.size(), absl::UnknownError("not called"));
  const int ranks = static_cast<int>(own.size());
  RunOnThreads(ranks, {.deadline = std::chrono::minutes(1)}, [&](Communicator& world) {
    agreed[world.rank()] = Agree(world, own[world.rank()]);
    EXPECT_EQ(Agree(world, own[world.rank()]), agreed[world.rank()]);
  });
  return agreed;
}

void ExpectOnAll(const std::vector<absl::Status>& own, const absl::Status& expected) {
  for (const absl::Status& status : Agreed(own)) EXPECT_EQ(status, expected);
}

const absl::Status kOk = absl::OkStatus();

TEST(Agree, OnSuccess) {
  for (const int ranks : {1, 2, 4}) {
    ExpectOnAll(std::vector<absl::Status>(ranks, absl::OkStatus()), absl::OkStatus());
  }
}

TEST(Agree, ARankAloneKeepsItsSentence) {
  ExpectOnAll({absl::DataLossError("a.bin: damaged")}, absl::DataLossError("a.bin: damaged"));
}

TEST(Agree, NamesTheRankThatFailedUnlessItIsTheFirst) {
  const absl::Status failure = absl::NotFoundError("a.bin: No such file");
  for (const int ranks : {2, 4}) {
    for (int failed = 0; failed < ranks; ++failed) {
      std::vector<absl::Status> own(ranks, absl::OkStatus());
      own[failed] = failure;
      const std::string prefix = failed == 0 ? "" : "rank " + std::to_string(failed) + ": ";
      ExpectOnAll(own, absl::NotFoundError(prefix + "a.bin: No such file"));
    }
  }
}

TEST(Agree, OnTheLowestOfSeveral) {
  const absl::Status late = absl::InternalError("late"), early = absl::AbortedError("early");
  ExpectOnAll({early, late}, early);
  ExpectOnAll({kOk, kOk, early, late}, absl::AbortedError("rank 2: early"));
  ExpectOnAll({kOk, early, kOk, late}, absl::AbortedError("rank 1: early"));
  ExpectOnAll({late, late, early, kOk}, late);
}

TEST(Agree, AFailureOfAllIsSaidOnce) {
  const std::vector<absl::Status> own(4, absl::InternalError("step 3: loss nan"));
  ExpectOnAll(own, own[0]);
  ExpectOnAll(Agreed({kOk, own[0]}), Agreed({kOk, own[0]})[0]);  // agreed on again
}

TEST(Agree, EveryCodeArrives) {
  for (int code = 1; code <= 16; ++code) {
    const auto own = static_cast<absl::StatusCode>(code);
    ExpectOnAll({kOk, absl::Status(own, "x")}, absl::Status(own, "rank 1: x"));
  }
}

TEST(Agree, MessagesArriveWhateverTheirLength) {
  ExpectOnAll({absl::InternalError(""), kOk}, absl::InternalError(""));
  ExpectOnAll({kOk, absl::InternalError("")}, absl::InternalError("rank 1: "));
  const std::string longer(100000, 'x'), zeros("a\0b", 3);
  ExpectOnAll({kOk, absl::InternalError(longer), absl::InternalError("short"), kOk},
              absl::InternalError("rank 1: " + longer));
  ExpectOnAll({absl::InternalError(zeros), absl::InternalError(longer)},
              absl::InternalError(zeros));
}

}  // namespace
}  // namespace moebius
