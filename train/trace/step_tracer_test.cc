#include "train/trace/step_tracer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/files.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

using Json = nlohmann::json;
using Lines = std::vector<std::string>;

// A run from one step to another, which may stop before.
struct RunSteps {
  int64_t first = 1, last = 10;
  int64_t stops_behind = last;
};

class StepTracerTest : public testing::Test {
 protected:
  // Steps on two ranks, an all-reduce each. What rank 0 is to print.
  absl::StatusOr<Lines> Trace(const RunSteps& run, int64_t num_steps, const std::string& path) {
    TraceRecorders recorders;
    absl::StatusOr<Lines> lines;
    const auto write = [&](StepTracer& tracer, int rank) {
      const auto said = tracer.Write();
      EXPECT_TRUE(recorders.Of(rank)->events().empty() || !said.ok());
      if (rank == 0) lines = said;
      if (rank > 0 && said.ok()) {
        EXPECT_TRUE(said->empty());
      }
    };
    RunOnThreads(2, {.observer_of = [&](int r) { return recorders.Of(r); }}, [&](Communicator& w) {
      StepTracer tracer({path, num_steps, recorders.Of(w.rank())}, w, run.first, run.last);
      for (int64_t step = run.first; step <= run.stops_behind; ++step) {
        tracer.BeginStep(step);
        double x = 1;
        w.AllReduce(std::span(&x, 1)).Wait();
        tracer.EndStep();
        if (tracer.IsComplete()) write(tracer, w.rank());
      }
      if (!tracer.is_written()) write(tracer, w.rank());
    });
    return lines;
  }

  // The steps in the file, by rank.
  static std::map<int, Lines> StepsIn(const std::string& path) {
    std::map<int, Lines> steps;
    const Json trace = Json::parse(*ReadFile(path));
    for (const Json& event : trace["traceEvents"]) {
      if (event.value("cat", "") == "step") steps[event["pid"]].push_back(event["name"]);
    }
    return steps;
  }

  const std::string path_ = testing::TempDir() + "/steps.json";
};

std::map<int, Lines> OnBoth(const Lines& steps) { return {{0, steps}, {1, steps}}; }

TEST_F(StepTracerTest, BeginsBehindTwoSteps) {
  const auto lines = Trace({.first = 5, .last = 20}, 3, path_);
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(StepsIn(path_), OnBoth({"step 7", "step 8", "step 9"}));
  EXPECT_TRUE(absl::StartsWith(lines->at(0), "trace: steps 7 to 9 of 2 ranks in " + path_));
  const auto has = [&](absl::string_view start) {
    return std::ranges::any_of(
        *lines, [&](const std::string& line) { return absl::StartsWith(line, start); });
  };
  EXPECT_TRUE(has("wait all-reduce "));
  EXPECT_TRUE(has("between ops "));
}

TEST_F(StepTracerTest, TracesAShortRunToItsEnd) {
  ASSERT_TRUE(Trace({.first = 1, .last = 4}, 3, path_).ok());
  EXPECT_EQ(StepsIn(path_), OnBoth({"step 2", "step 3", "step 4"}));
  ASSERT_TRUE(Trace({.first = 1, .last = 1}, 3, path_).ok());
  EXPECT_EQ(StepsIn(path_), OnBoth({"step 1"}));
}

TEST_F(StepTracerTest, WritesWhatThereIsWhenARunStops) {
  const auto lines = Trace({.first = 1, .last = 10, .stops_behind = 3}, 3, path_);
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(StepsIn(path_), OnBoth({"step 3"}));
  EXPECT_TRUE(absl::StartsWith(lines->at(0), "trace: steps 3 to 3 "));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Trace({.first = 1, .last = 10, .stops_behind = 2}, 3, path_).status()));
}

TEST_F(StepTracerTest, AllRanksGoOnWhereTheFileCannotBeWritten) {
  const auto lines = Trace({}, 3, testing::TempDir() + "/nowhere/steps.json");
  EXPECT_TRUE(absl::IsNotFound(lines.status())) << lines.status();
}

// Threads have one clock.
TEST(ClockAhead, IsLittleOnOneHost) {
  std::mutex mutex;
  std::vector<int64_t> ahead;
  RunOnThreads(3, [&](Communicator& world) {
    const int64_t own = ClockAhead(world);
    const std::lock_guard lock(mutex);
    ahead.push_back(own);
  });
  ASSERT_EQ(ahead.size(), 3u);
  for (const int64_t ns : ahead) EXPECT_LT(std::abs(ns), 20'000'000);
}

}  // namespace
}  // namespace moebius
