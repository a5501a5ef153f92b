#include "train/run_directory/run_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace moebius {
namespace {

std::string TestPath() {
  const std::string path =
      testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove_all(path);
  return path;
}

TEST(RunDirectory, StatusReadsBack) {
  auto run = RunDirectory::Open(TestPath() + "/nested/run");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_TRUE(absl::IsNotFound(ReadRunStatus(run->paths()).status()));
  ASSERT_TRUE(run->WriteConfig("a: 1\n").ok());
  EXPECT_EQ(ReadFile(run->paths().config()).value(), "a: 1\n");

  ASSERT_TRUE(run->WriteStatus({.step = 7, .num_steps = 20}).ok());
  EXPECT_FALSE(ReadRunStatus(run->paths())->exit_code.has_value());
  ASSERT_TRUE(run->WriteStatus({.state = "failed",
                                .step = 7,
                                .num_steps = 20,
                                .last_checkpoint = "step-00000005",
                                .exit_reason = "rank 3 is \"lost\"",
                                .exit_code = 1})
                  .ok());
  const RunStatus status = ReadRunStatus(run->paths()).value();
  EXPECT_EQ(status.state, "failed");
  EXPECT_EQ(status.step, 7);
  EXPECT_EQ(status.num_steps, 20);
  EXPECT_EQ(status.last_checkpoint, "step-00000005");
  EXPECT_EQ(status.exit_reason, "rank 3 is \"lost\"");
  EXPECT_EQ(status.exit_code, 1);
  EXPECT_EQ(status.attempt, 1);
}

// Any rank may record that it failed, and rank 0, a step behind, does not write over it.
TEST(RunDirectory, TheFirstFailureOfAnAttemptStays) {
  const std::string root = TestPath();
  {
    auto run = RunDirectory::Open(root);
    ASSERT_TRUE(run.ok());
    ASSERT_TRUE(run->WriteStatus({.step = 7, .num_steps = 20}).ok());
    RecordFailure({root}, "rank 1 is lost", 1);
    RecordFailure({root}, "rank 2 is lost too", 70);
    ASSERT_TRUE(run->WriteStatus({.step = 8, .num_steps = 20}).ok());
    const RunStatus status = ReadRunStatus({root}).value();
    EXPECT_EQ(status.state, "failed");
    EXPECT_EQ(status.step, 7);
    EXPECT_EQ(status.exit_reason, "rank 1 is lost");
    EXPECT_EQ(status.exit_code, 1);
  }
  auto again = RunDirectory::Open(root);
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE(again->WriteStatus({.step = 7, .num_steps = 20}).ok());
  EXPECT_EQ(ReadRunStatus({root})->state, "running");
  EXPECT_EQ(ReadRunStatus({root})->attempt, 2);
}

// Once one of them is on record, it is for good.
TEST(RunDirectory, OneOfManyFailuresAtOnceStays) {
  const std::string root = TestPath();
  auto run = RunDirectory::Open(root);
  ASSERT_TRUE(run.ok());
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(WriteFileAtomically(RunPaths{root}.status(), "").ok());
    constexpr int kRanks = 8;
    std::vector<std::string> seen(kRanks);
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < kRanks; ++rank) {
      ranks.emplace_back([&, rank] {
        RecordFailure({root}, absl::StrCat("rank ", rank, " is lost"), 1);
        seen[rank] = ReadRunStatus({root})->exit_reason;
      });
    }
    for (std::thread& rank : ranks) rank.join();
    for (const std::string& reason : seen) EXPECT_EQ(reason, seen[0]);
  }
}

TEST(RunDirectory, CountsAttempts) {
  const std::string root = TestPath();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    auto run = RunDirectory::Open(root);
    ASSERT_TRUE(run.ok());
    EXPECT_EQ(run->attempt(), attempt);
    ASSERT_TRUE(run->WriteStatus({}).ok());
  }
}

TEST(RunDirectory, IsForOneRunAtATime) {
  const std::string root = TestPath();
  {
    auto run = RunDirectory::Open(root);
    ASSERT_TRUE(run.ok());
    const absl::Status second = RunDirectory::Open(root).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(second.ToString().find(root), std::string::npos);
    EXPECT_NE(second.ToString().find(absl::StrCat("process ", ::getpid())), std::string::npos);
  }
  EXPECT_TRUE(RunDirectory::Open(root).ok());
}

TEST(RunDirectory, AKilledRunLeavesNoLock) {
  const std::string root = TestPath();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto run = RunDirectory::Open(root);
    ::kill(::getpid(), run.ok() ? SIGKILL : SIGABRT);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_TRUE(RunDirectory::Open(root).ok());
}

TEST(RunDirectory, DamagedStatusIsNamed) {
  const RunPaths paths{TestPath()};
  std::filesystem::create_directories(paths.root);
  for (const char* text : {"", "{", "[]", R"({"state": 1})", R"({"state": "running"})"}) {
    ASSERT_TRUE(WriteFileAtomically(paths.status(), text).ok());
    const absl::Status status = ReadRunStatus(paths).status();
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_NE(status.ToString().find("status.json"), std::string::npos);
  }
}

TEST(RunLog, KeepsWholeLinesOfAllThreadsAndAttempts) {
  const RunPaths paths{TestPath()};
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto log = RunLog::Open(paths.log(12));
    ASSERT_TRUE(log.ok()) << log.status();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) (*log)->Line("hello");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  const std::string content = ReadFile(paths.root + "/log/rank-012.txt").value();
  const std::vector<std::string> lines = absl::StrSplit(content, '\n', absl::SkipEmpty());
  EXPECT_EQ(lines.size(), 400u);
  for (const std::string& line : lines) EXPECT_EQ(line.substr(23), " hello");
}

TEST(RunLog, IsWrittenByTwoAtOnce) {
  const RunPaths paths{TestPath()};
  auto one = RunLog::Open(paths.log(0)), other = RunLog::Open(paths.log(0));
  ASSERT_TRUE(one.ok() && other.ok());
  for (int i = 0; i < 2; ++i) {
    (*one)->Line("one");
    (*other)->Line("other");
  }
  const std::string content = ReadFile(paths.log(0)).value();
  std::string told;
  for (const absl::string_view line : absl::StrSplit(content, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&told, line.substr(23));
  }
  EXPECT_EQ(told, " one other one other");
}

}  // namespace
}  // namespace moebius
