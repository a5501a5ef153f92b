#include "train/report/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "train/metrics/metrics_log.h"

namespace moebius {
namespace {

RunPaths TestRun() {
  const std::string root =
      testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove_all(root);
  std::filesystem::create_directories(root);
  return {root};
}

void WriteSteps(const RunPaths& paths, int64_t num_steps) {
  auto log = MetricsLog::Open(paths.metrics(), 0).value();
  for (int64_t step = 1; step <= num_steps; ++step) {
    StepMetrics m{.step = step, .loss = 5.0 / std::sqrt(static_cast<double>(step))};
    m.expert_load = {{0, {10, 20, 30}}, {2, {0, step, 0}}};
    ASSERT_TRUE(log.Write(m).ok());
    if (step % 100 == 0) {
      ASSERT_TRUE(log.Write(EvalMetrics{step, "</script><b>", 2.5, 1.5}).ok());
    }
  }
}

nlohmann::json DataOf(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const size_t at = page.find(begin) + begin.size();
  return nlohmann::json::parse(page.substr(at, page.find("</script>", at) - at));
}

size_t Count(const std::string& page, const std::string& what) {
  size_t count = 0;
  for (size_t at = page.find(what); at != page.npos; at = page.find(what, at + 1)) ++count;
  return count;
}

TEST(Report, HoldsTheRun) {
  const RunPaths paths = TestRun();
  WriteSteps(paths, 200);
  ASSERT_TRUE(WriteReport(paths).ok()) << WriteReport(paths);
  const std::string page = ReadFile(paths.report()).value();
  EXPECT_NE(page.find("<title>HoldsTheRun</title>"), page.npos);
  EXPECT_NE(page.find("Chart.js v3"), page.npos);
  const auto data = DataOf(page);
  EXPECT_EQ(data["steps"]["step"].size(), 200u);
  EXPECT_EQ(data["steps"]["loss"][0], 5.0);
  EXPECT_EQ(data["evaluations"][1]["step"], 200);
  EXPECT_EQ(data["loads"][0]["rows"][0], (std::vector<double>{0.5, 1, 1.5}));
  EXPECT_EQ(data["loads"][1]["layer"], 2);
  EXPECT_EQ(data["loads"][1]["rows"][199], (std::vector<double>{0, 3, 0}));
  EXPECT_TRUE(data["status"].is_null());
}

TEST(Report, NeedsNothingElse) {
  const RunPaths paths = TestRun();
  WriteSteps(paths, 3);
  const std::string page = ReportPage(paths).value();
  for (const char* load : {"src=", "<link", "@import", "url(", "fetch("}) {
    EXPECT_EQ(page.find(load), page.npos) << load;
  }
  EXPECT_EQ(page.find("@{"), page.npos) << "a place that nobody filled";
}

TEST(Report, EscapesWhatItDidNotWrite) {
  const RunPaths paths = TestRun();
  WriteSteps(paths, 100);
  const std::string evil = "<script>alert(\"1\")</script> & @{data} \xff";
  ASSERT_TRUE(WriteFileAtomically(paths.config(), evil).ok());
  ASSERT_TRUE(WriteFileAtomically(paths.sample(), evil).ok());
  ASSERT_TRUE(WriteFileAtomically(paths.status(), R"({"state": "</script><i>\u00ff"})").ok());
  const std::string page = ReportPage(paths).value();
  EXPECT_EQ(page.find("alert(\"1\")"), page.npos);
  EXPECT_EQ(Count(page, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; @{data}"), 2u);
  EXPECT_EQ(Count(page, "</script>"), 3u) << "the data, the library, the page's own script";
  EXPECT_EQ(Count(page, "<i>"), 0u);
  EXPECT_EQ(DataOf(page)["evaluations"][0]["domain"], "</script><b>");
  EXPECT_EQ(DataOf(page)["status"]["state"], "</script><i>\u00ff");
}

TEST(Report, ThinsOutLongRuns) {
  const RunPaths paths = TestRun();
  WriteSteps(paths, 2503);
  const auto data = DataOf(ReportPage(paths).value());
  EXPECT_EQ(data["stride"], 3);
  EXPECT_EQ(data["steps"]["step"].back(), 2503) << "the last record is shown";
  EXPECT_LE(data["steps"]["loss"].size(), 1000u);
  EXPECT_LE(data["loads"][0]["rows"].size(), 240u);
  EXPECT_EQ(data["loads"][0]["rows"].size(), data["load_steps"].size());
}

TEST(Report, TakesWhatIsReadable) {
  const RunPaths paths = TestRun();
  const std::string lines =
      "{\"step\":1,\"loss\":null,\"grad_norm\":\"x\"}\nnot json\n[]\n"
      "{\"step\":2,\"loss\":1.5}\n{\"step\":3,\"lo";
  ASSERT_TRUE(WriteFileAtomically(paths.metrics(), lines).ok());
  const auto page = ReportPage(paths);
  ASSERT_TRUE(page.ok()) << page.status();
  const auto data = DataOf(*page);
  EXPECT_EQ(data["unreadable_lines"], 2);
  EXPECT_EQ(data["steps"]["step"], (std::vector<int>{1, 2}));
  EXPECT_TRUE(data["steps"]["loss"][0].is_null());
  EXPECT_TRUE(data["steps"]["grad_norm"][0].is_null());
  EXPECT_TRUE(data["loads"].empty());
}

TEST(Report, SaysWhatIsMissing) {
  const RunPaths paths = TestRun();
  EXPECT_TRUE(absl::IsNotFound(ReportPage(paths).status()));
  ASSERT_TRUE(WriteFileAtomically(paths.metrics(), "\n").ok());
  EXPECT_NE(ReportPage(paths).status().ToString().find("metrics.jsonl: has no record"),
            std::string::npos);
}

}  // namespace
}  // namespace moebius
