#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "train/trace/op_totals.h"
#include "train/trace/trace_file.h"
#include "train/trace/trace_recorder.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

int64_t now_ns = 0;
int64_t TestClock() { return now_ns; }

class AllReduce final : public Pending {
 public:
  explicit AllReduce(int64_t number)
      : call_({.collective = Collective::kAllReduce,
               .dtype = DType::kF32,
               .count = 8,
               .bytes = 32,
               .sequence = number,
               .order = number}) {}

  const Call& call() const override { return call_; }
  const std::string& group() const override { return group_; }
  std::string Title() const override { return call_.ToString(); }
  absl::StatusOr<bool> Advance() override { return true; }
  std::optional<std::string> Mismatch(const Board&) const override { return std::nullopt; }
  std::vector<int> Missing(const Board&) const override { return {}; }

 private:
  const std::string group_ = "data \"parallel\"";
  const Call call_;
};

const Work kProduct = {.op = "linear",
                       .kind = Work::Kind::kProduct,
                       .dtype = DType::kBF16,
                       .flops = 90,
                       .bytes = 64,
                       .rows = 3,
                       .inner = 5,
                       .columns = 3,
                       .groups = 2};
const Work kCopy = {.op = "cast", .bytes = 40};

// Step 4, from 0 to 100: a linear from 10 to 40 with a cast from 20 to 30 in it; two all-reduces
// under way, from 40 to 70 and from 50 to 90; the second is waited for from 60 to 90.
void RunStep(TraceRecorder& recorder) {
  const AllReduce first(1), second(2);
  const auto at = [](int64_t time) { now_ns = time; };
  at(0), recorder.BeginStep(4), recorder.PhaseBegins("forward and backward");
  recorder.ActionBegins({.micro_batch = 3});
  at(10), recorder.OpBegins(kProduct);
  at(20), recorder.OpBegins(kCopy);
  at(30), recorder.OpEnds();
  at(40), recorder.OpEnds(), recorder.ActionEnds({.micro_batch = 3});
  recorder.StartBegins(first), recorder.StartEnds();
  at(50), recorder.StartBegins(second), recorder.StartEnds();
  at(60), recorder.WaitBegins(second);
  at(70), recorder.Done(first);
  at(90), recorder.Done(second), recorder.WaitEnds();
  at(100), recorder.PhaseEnds(), recorder.EndStep();
}

// The events of `name`, as the file of this recorder alone has them.
std::vector<Json> Events(const TraceRecorder& recorder, const std::string& name) {
  std::vector<Json> events;
  for (const Json& event : Json::parse(absl::StrCat("[", EventsJson(recorder, 7, -1000), "]"))) {
    if (event["name"] == name) events.push_back(event);
  }
  return events;
}

TEST(TraceRecorder, KnowsNestingAndOwnTimes) {
  TraceRecorder recorder(100, TestClock);
  RunStep(recorder);
  std::map<std::string, std::pair<int64_t, int64_t>> times;  // whole, own
  for (const TraceEvent& event : recorder.events()) {
    times[NameOf(event)] = {event.duration_ns(), event.own_ns()};
  }
  EXPECT_EQ(times.at("step 4"), std::pair(100L, 0L));
  EXPECT_EQ(times.at("forward and backward"), std::pair(100L, 30L));
  EXPECT_EQ(times.at("forward of micro-batch 3, chunk 0"), std::pair(40L, 10L));
  EXPECT_EQ(times.at("linear"), std::pair(30L, 20L));
  EXPECT_EQ(times.at("cast"), std::pair(10L, 10L));
  EXPECT_EQ(times.at("wait all-reduce"), std::pair(30L, 30L));
}

TEST(TraceRecorder, IsSilentBetweenSteps) {
  TraceRecorder recorder(100, TestClock);
  recorder.OpBegins(kCopy);
  recorder.OpEnds();
  recorder.StartBegins(AllReduce(1));
  recorder.StartEnds();
  recorder.Done(AllReduce(1));
  EXPECT_TRUE(recorder.events().empty());
}

TEST(TraceRecorder, LeavesOutWhatHasNoRoom) {
  TraceRecorder recorder(4, TestClock);  // up to the cast
  RunStep(recorder);
  EXPECT_EQ(recorder.events().size(), 4u);
  EXPECT_EQ(NameOf(recorder.events().back()), "linear");
  EXPECT_EQ(recorder.events()[0].duration_ns(), 100);
  EXPECT_EQ(recorder.events()[3].own_ns(), 30);
  EXPECT_EQ(TotalsOf(recorder).num_left_out, 6);
}

TEST(TraceFile, SaysWhatAnOpDoes) {
  TraceRecorder recorder(100, TestClock);
  RunStep(recorder);
  const Json linear = Events(recorder, "linear").at(0);
  EXPECT_EQ(linear["ph"], "X");
  EXPECT_EQ(linear["pid"], 7);
  EXPECT_EQ(linear["tid"], 0);
  EXPECT_EQ(linear["ts"], 1.01);  // microseconds from the origin
  EXPECT_EQ(linear["dur"], 0.03);
  EXPECT_EQ(linear["args"], Json::parse(R"({"bytes": 64, "flops": 90.0, "GFLOP/s": 3.0, "rows": 3,
                                            "inner": 5, "columns": 3, "groups": 2,
                                            "dtype": "BF16"})"));
  const Json cast = Events(recorder, "cast").at(0);
  EXPECT_EQ(cast["args"], Json::parse(R"({"bytes": 40, "GB/s": 4.0})"));
}

TEST(TraceFile, GivesExchangesUnderWayRowsOfTheirOwn) {
  TraceRecorder recorder(100, TestClock);
  RunStep(recorder);
  const std::vector<Json> under_way = Events(recorder, "all-reduce");
  ASSERT_EQ(under_way.size(), 2u);
  EXPECT_EQ(under_way[0]["dur"], 0.03);
  EXPECT_EQ(under_way[0]["tid"], 1);
  EXPECT_EQ(under_way[0]["args"]["number"], 1);
  EXPECT_EQ(under_way[0]["args"]["group"], "data \"parallel\"");
  EXPECT_EQ(under_way[1]["dur"], 0.04);
  EXPECT_EQ(under_way[1]["tid"], 2);
  EXPECT_EQ(under_way[1]["args"]["number"], 2);
  std::set<std::string> rows;
  for (const Json& row : Events(recorder, "thread_name")) rows.insert(row["args"]["name"]);
  EXPECT_EQ(rows, (std::set<std::string>{"compute", "communication 1", "communication 2"}));
}

TEST(TraceFile, AppearsWhenItIsWhole) {
  const std::string path = testing::TempDir() + "/trace.json";
  TraceRecorder recorder(100, TestClock);
  RunStep(recorder);
  {
    auto file = TraceFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    for (const int rank : {0, 1}) EXPECT_TRUE(file->Add(EventsJson(recorder, rank, 0)).ok());
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_TRUE(file->Commit().ok());
  }
  const auto text = ReadFile(path);
  ASSERT_TRUE(text.ok()) << text.status();
  std::set<int> ranks;
  const Json trace = Json::parse(*text);
  for (const Json& event : trace["traceEvents"]) ranks.insert(event["pid"].get<int>());
  EXPECT_EQ(ranks, (std::set<int>{0, 1}));
}

TEST(TraceFile, LeavesNothingWhereItIsNotCommitted) {
  const std::string folder = testing::TempDir() + "/uncommitted";
  std::filesystem::create_directory(folder);
  { EXPECT_TRUE(TraceFile::Create(folder + "/trace.json").ok()); }
  EXPECT_TRUE(CheckTracePath(folder + "/trace.json").ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(TraceFile, RefusesAPathThatCannotBeWritten) {
  const std::string folder = testing::TempDir();
  const absl::Status missing = CheckTracePath(folder + "/nowhere/trace.json");
  EXPECT_TRUE(absl::IsInvalidArgument(missing));
  EXPECT_EQ(missing.message(),
            "--trace: " + folder + "/nowhere/trace.json: cannot create: No such file or directory");
  EXPECT_EQ(CheckTracePath(folder).message(), "--trace: " + folder + " is not a file");
}

TEST(OpTotals, AddUpOverRanks) {
  TraceRecorder recorder(100, TestClock);
  RunStep(recorder);
  StepTotals totals = TotalsOf(recorder);
  AddTo(totals, Decode(Encode(totals)));
  EXPECT_EQ(totals.num_steps, 2);
  EXPECT_EQ(totals.steps_ns, 200);
  EXPECT_EQ(totals.ops.size(), 4u);
  EXPECT_EQ(totals.ops.at("linear").calls, 2);
  EXPECT_EQ(totals.ops.at("linear").own_ns, 40);
  EXPECT_EQ(totals.ops.at("linear").flops, 180);
  EXPECT_EQ(totals.ops.at("cast").bytes, 80);
  EXPECT_EQ(totals.ops.at("wait all-reduce").own_ns, 60);
  EXPECT_EQ(totals.ops.at("start all-reduce").calls, 4);
}

TEST(OpTotals, TableIsInOrderOfTime) {
  const StepTotals totals{
      .num_steps = 1,
      .steps_ns = 100'000'000,
      .ops = {{"add", {2, 10'000'000, 0, 5e7}}, {"linear", {4, 60'000'000, 1.2e9, 1e6}}}};
  const std::vector<std::string> lines = Table(totals);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_TRUE(absl::StartsWith(lines[1], "linear ")) << lines[1];
  EXPECT_TRUE(absl::EndsWith(lines[1], " 4        60.00   60.0%     20.0 GFLOP/s")) << lines[1];
  EXPECT_TRUE(absl::StartsWith(lines[2], "add ")) << lines[2];
  EXPECT_TRUE(absl::EndsWith(lines[2], " 2        10.00   10.0%         5.0 GB/s")) << lines[2];
  EXPECT_TRUE(absl::StartsWith(lines[3], "between ops ")) << lines[3];
  EXPECT_TRUE(absl::EndsWith(lines[3], "30.00   30.0%")) << lines[3];
}

TEST(OpTotals, TableIsSmall) {
  StepTotals totals{.num_steps = 1, .steps_ns = 1000};
  for (int i = 0; i < 50; ++i) totals.ops[absl::StrCat("op", i)] = {1, 10 + i, 0, 0};
  const std::vector<std::string> lines = Table(totals);
  ASSERT_EQ(lines.size(), 23u);  // with head, others, and what is between
  EXPECT_TRUE(absl::StartsWith(lines[1], "op49 ")) << lines[1];
  EXPECT_TRUE(absl::StartsWith(lines[21], "30 others ")) << lines[21];
}

}  // namespace
}  // namespace moebius
