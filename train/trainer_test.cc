#include "train/trainer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "core/base/check.h"
#include "core/base/files.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"
#include "train/checkpoint/checkpoint.h"
#include "train/run_directory/run_directory.h"

namespace moebius {
namespace {

using Json = nlohmann::json;
using Overrides = std::vector<std::string>;
using Steps = std::vector<int64_t>;

constexpr int64_t kNumSteps = 5;

// What happens to a rank before its first step and after each: the test may change the session and
// ask something of the run.
using Outside = std::function<Request(Session& session)>;

Request Nothing(Session&) { return Request::kNone; }

// The last rank asks for `request` after `step`.
Outside Ask(Request request, int64_t step) {
  return [=](Session& session) {
    const Communicator& world = session.mesh().world();
    const bool now = session.steps_done() == step && world.rank() == world.size() - 1;
    return now ? request : Request::kNone;
  };
}

struct Ended {
  absl::Status status;
  std::optional<TrainOutcome> outcome = std::nullopt;
  int64_t steps_done = 0;

  bool operator==(const Ended&) const = default;
};

Ended TrainOnRank(Session& session, RunDirectory& run, const std::string& resume_from,
                  const Outside& outside) {
  auto trainer = Trainer::Create({.checkpoint_directory = run.paths().checkpoints(),
                                  .resume_from = resume_from,
                                  .config_text = "a config\n",
                                  .peak_flops = 1,
                                  .run = session.mesh().world().rank() == 0 ? &run : nullptr,
                                  .take_request = [&] { return outside(session); }},
                                 session, TinyDataset());
  if (!trainer.ok()) return {.status = trainer.status()};
  outside(session);
  const absl::StatusOr<TrainOutcome> outcome = (*trainer)->Run();
  if (Recorder* recorder = (*trainer)->recorder()) {
    EXPECT_TRUE(recorder->SetStatus("ended", session.steps_done()).ok());
  }
  Ended ended{.status = outcome.status(), .steps_done = session.steps_done()};
  if (outcome.ok()) ended.outcome = *outcome;
  return ended;
}

class TrainerTest : public testing::TestWithParam<int> {
 protected:
  // A run of the test in a folder of its own.
  std::string Folder(const std::string& name) const {
    const char* test = testing::UnitTest::GetInstance()->current_test_info()->name();
    return testing::TempDir() + "/" + test + "/" + name;
  }
  int ranks() const { return GetParam(); }

  // Starts the run, or goes on with it. All ranks end alike.
  Ended Train(const std::string& folder, const Overrides& more = {},
              const Outside& outside = Nothing, const std::string& resume_from = "") {
    Overrides overrides = {"train.num_steps=" + std::to_string(kNumSteps),
                           "optimizer.warmup_steps=2", "train.eval_max_tokens_per_domain=16",
                           "checkpoint.interval_steps=2", "checkpoint.keep_last=100"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    auto run = RunDirectory::Open(folder);
    CHECK(run.ok()) << run.status();
    std::vector<Ended> ended(ranks());
    OnTinySessions(ranks(), TinyConfig(overrides), [&](Session& session) {
      ended[session.mesh().world().rank()] = TrainOnRank(session, *run, resume_from, outside);
    });
    for (const Ended& rank : ended) EXPECT_EQ(rank, ended[0]) << rank.status;
    return ended[0];
  }
};

// The lines of metrics.jsonl.
std::vector<Json> Records(const std::string& folder) {
  const auto text = ReadFile(RunPaths{folder}.metrics());
  CHECK(text.ok()) << text.status();
  std::vector<Json> records;
  for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    records.push_back(Json::parse(line.begin(), line.end()));
  }
  return records;
}

// ... without what a step cost.
std::vector<Json> Results(const std::string& folder) {
  std::vector<Json> records = Records(folder);
  for (Json& record : records) {
    for (const char* cost : {"tokens_per_second", "step_ms", "mfu", "peak_bytes", "host_peak_bytes",
                             "checkpoint_stall_ms", "retries"}) {
      record.erase(cost);
    }
  }
  return records;
}

Steps LoggedSteps(const std::string& folder) {
  Steps steps;
  for (const Json& record : Results(folder)) {
    if (!record.contains("eval")) steps.push_back(record["step"].get<int64_t>());
  }
  return steps;
}

Steps EvaluatedSteps(const std::string& folder) {
  Steps steps;
  for (const Json& record : Results(folder)) {
    if (record.contains("eval")) steps.push_back(record["step"].get<int64_t>());
  }
  return steps;
}

Steps FirstSteps(int64_t count) {
  Steps steps(count);
  std::iota(steps.begin(), steps.end(), 1);
  return steps;
}

Steps SavedSteps(const std::string& folder) {
  const auto checkpoints = FindCheckpoints(RunPaths{folder}.checkpoints());
  CHECK(checkpoints.ok()) << checkpoints.status();
  Steps steps;
  for (const CheckpointFolder& checkpoint : *checkpoints) steps.push_back(checkpoint.step);
  return {steps.rbegin(), steps.rend()};
}

std::string CheckpointPath(const std::string& folder, int64_t step) {
  return RunPaths{folder}.checkpoints() + "/" + CheckpointName(step);
}

std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[entry.path().filename()] = ReadFile(entry.path()).value();
  }
  return files;
}

TEST_P(TrainerTest, LogsEvaluatesAndSaves) {
  const std::string run = Folder("run");
  const Ended ended = Train(run, {"train.eval_interval_steps=3"});
  EXPECT_EQ(ended.status, absl::OkStatus());
  EXPECT_EQ(ended.outcome, TrainOutcome::kDone);
  EXPECT_EQ(LoggedSteps(run), FirstSteps(kNumSteps));
  EXPECT_EQ(EvaluatedSteps(run), (Steps{3, 3, 3, 5, 5, 5}));  // three domains
  EXPECT_EQ(SavedSteps(run), (Steps{2, 4, 5}));
  EXPECT_EQ(ReadRunStatus({run})->last_checkpoint, CheckpointName(5));
  EXPECT_EQ(ReadRunStatus({run})->step, kNumSteps);
}

TEST_P(TrainerTest, LogsAtTheIntervalAndTheLastStep) {
  const std::string run = Folder("run");
  Train(run, {"train.log_interval_steps=2", "checkpoint.interval_steps=0"});
  EXPECT_EQ(LoggedSteps(run), (Steps{2, 4, 5}));
  EXPECT_EQ(EvaluatedSteps(run), (Steps{5, 5, 5}));
  EXPECT_EQ(SavedSteps(run), (Steps{5}));
}

TEST_P(TrainerTest, StopsAndGoesOnAsIfItHadNot) {
  const std::string alone = Folder("alone"), run = Folder("run");
  Train(alone);
  const Ended stopped = Train(run, {}, Ask(Request::kStop, 3));
  EXPECT_EQ(stopped.status, absl::OkStatus());
  EXPECT_EQ(stopped.outcome, TrainOutcome::kStopped);
  EXPECT_EQ(stopped.steps_done, 3);
  EXPECT_EQ(SavedSteps(run), (Steps{2, 3}));
  EXPECT_EQ(LoggedSteps(run), FirstSteps(3));
  EXPECT_TRUE(EvaluatedSteps(run).empty());
  EXPECT_EQ(ReadRunStatus({run})->last_checkpoint, CheckpointName(3));

  const Ended ended = Train(run);
  EXPECT_EQ(ended.outcome, TrainOutcome::kDone);
  EXPECT_EQ(SavedSteps(run), (Steps{2, 3, 4, 5}));
  EXPECT_EQ(Results(run), Results(alone));
  EXPECT_EQ(FilesOf(CheckpointPath(run, 5)), FilesOf(CheckpointPath(alone, 5)));
}

// Exchanges have less room than even routing needs. A run that resumes finds out again.
TEST_P(TrainerTest, TellsOfStepsThatWereTakenAgain) {
  const std::string exact = Folder("exact"), run = Folder("run");
  const std::string experts = "parallel.expert_size=" + std::to_string(ranks());
  const Overrides bounded = {experts, "parallel.exchange_capacity=0.25"};
  Train(exact, {experts});
  Train(run, bounded, Ask(Request::kStop, 3));
  Train(run, bounded);
  EXPECT_EQ(Results(run), Results(exact));
  EXPECT_EQ(FilesOf(CheckpointPath(run, 5)), FilesOf(CheckpointPath(exact, 5)));

  const bool rows_travel = ranks() > 1;
  const std::string log = ReadFile(RunPaths{run}.log(0)).value();
  for (const int step : {1, 4}) {
    const std::string sentence = absl::StrCat("step ", step, ": exchanges had no room");
    EXPECT_EQ(log.find(sentence) != std::string::npos, rows_travel) << sentence;
    EXPECT_EQ(Records(run)[step - 1]["retries"].get<int64_t>() > 0, rows_travel);
  }
  EXPECT_EQ(Records(run)[1]["retries"], 0);
}

TEST_P(TrainerTest, ARequestToStopWithTheLastStepIsDone) {
  const Ended ended = Train(Folder("run"), {}, Ask(Request::kStop, kNumSteps));
  EXPECT_EQ(ended.outcome, TrainOutcome::kDone);
}

TEST_P(TrainerTest, SavesOnRequestAndGoesOn) {
  const std::string alone = Folder("alone"), run = Folder("run");
  Train(alone);
  const Ended ended = Train(run, {}, Ask(Request::kSave, 3));
  EXPECT_EQ(ended.outcome, TrainOutcome::kDone);
  EXPECT_EQ(SavedSteps(run), (Steps{2, 3, 4, 5}));
  EXPECT_EQ(Results(run), Results(alone));
}

TEST_P(TrainerTest, StartsFromAnotherRunsCheckpoint) {
  const std::string first = Folder("first"), second = Folder("second");
  Train(first);
  EXPECT_EQ(Train(second, {}, Nothing, CheckpointPath(first, 2)).outcome, TrainOutcome::kDone);
  EXPECT_EQ(SavedSteps(second), (Steps{4, 5}));
  std::vector<Json> rest;
  for (const Json& record : Results(first)) {
    if (record["step"] > 2) rest.push_back(record);
  }
  EXPECT_EQ(Results(second), rest);
}

TEST_P(TrainerTest, ARunThatIsDoneStaysAsItIs) {
  const std::string run = Folder("run");
  Train(run);
  const auto before = Results(run);
  const Ended again = Train(run);
  EXPECT_EQ(again.outcome, TrainOutcome::kDone);
  EXPECT_EQ(again.steps_done, kNumSteps);
  EXPECT_EQ(Results(run), before);
  EXPECT_EQ(SavedSteps(run), (Steps{2, 4, 5}));
}

// Steps are spoilt on the last rank alone wherever spoilt(number of the step) says so.
Outside Spoil(const std::function<bool(int64_t step)>& spoilt) {
  return [=](Session& session) {
    const Communicator& world = session.mesh().world();
    if (world.rank() != world.size() - 1) return Request::kNone;
    for (Parameter* parameter : session.model().store().parameters()) {
      if (parameter->name != "layers.0.attention_norm.weight") continue;
      const bool bad = spoilt(session.steps_done() + 1);
      parameter->value.data<double>()[0] = bad ? std::numeric_limits<double>::quiet_NaN() : 1.0;
      ++parameter->version;
    }
    return Request::kNone;
  };
}

void ExpectBadSteps(const Ended& ended, int64_t step, int64_t in_a_row, int64_t most) {
  EXPECT_EQ(ended.status.code(), absl::StatusCode::kInternal);
  const std::string sentence(ended.status.message());
  EXPECT_TRUE(sentence.starts_with("step " + std::to_string(step) + ": loss ")) << sentence;
  EXPECT_TRUE(sentence.ends_with(
      ": " + std::to_string(in_a_row) +
      " steps in a row were not finite (train.max_bad_steps: " + std::to_string(most) + ")"))
      << sentence;
  EXPECT_EQ(ended.steps_done, step);
}

TEST_P(TrainerTest, FailsWhenTooManyStepsInARowAreBad) {
  const std::string run = Folder("run");
  const Ended ended = Train(run, {"train.max_bad_steps=2"}, Spoil([](int64_t) { return true; }));
  ExpectBadSteps(ended, 3, 3, 2);
  EXPECT_EQ(LoggedSteps(run), FirstSteps(3));
  for (const Json& record : Results(run)) EXPECT_TRUE(record["loss"].is_null()) << record;

  const Ended first =
      Train(Folder("strict"), {"train.max_bad_steps=0"}, Spoil([](int64_t s) { return s == 2; }));
  EXPECT_EQ(first.status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(first.steps_done, 2);
}

TEST_P(TrainerTest, AGoodStepInBetweenForgivesBadOnes) {
  const std::string run = Folder("run");
  const Ended ended =
      Train(run, {"train.max_bad_steps=2"}, Spoil([](int64_t step) { return step != 3; }));
  EXPECT_EQ(ended.outcome, TrainOutcome::kDone);
  EXPECT_EQ(LoggedSteps(run), FirstSteps(kNumSteps));
}

TEST_P(TrainerTest, BadStepsAreCountedAcrossAResume) {
  const std::string run = Folder("run");
  const Overrides limit = {"train.max_bad_steps=2"};
  const Outside spoil = Spoil([](int64_t) { return true; });
  const Ended stopped = Train(run, limit, [&](Session& session) {
    spoil(session);
    return Ask(Request::kStop, 2)(session);
  });
  EXPECT_EQ(stopped.outcome, TrainOutcome::kStopped);
  ExpectBadSteps(Train(run, limit, spoil), 3, 3, 2);
}

INSTANTIATE_TEST_SUITE_P(Ranks, TrainerTest, testing::Values(1, 2),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace moebius
