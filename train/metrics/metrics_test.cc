#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/str_split.h"
#include "core/base/files.h"
#include "train/metrics/console.h"
#include "train/metrics/event.pb.h"
#include "train/metrics/metrics_log.h"
#include "train/metrics/tensorboard_writer.h"

namespace moebius {
namespace {

std::string TestPath() {
  const std::string path =
      testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove_all(path);
  return path;
}

StepMetrics MetricsOf(int64_t step) {
  StepMetrics m{.step = step, .loss = 3.0 / static_cast<double>(step), .tokens = 512 * step};
  m.expert_load = {{1, {step, 0, 3}}};
  return m;
}

std::vector<nlohmann::json> RecordsOf(const std::string& path) {
  std::vector<nlohmann::json> records;
  const std::string content = ReadFile(path).value();
  for (absl::string_view line : absl::StrSplit(content, '\n', absl::SkipEmpty())) {
    records.push_back(nlohmann::json::parse(line.begin(), line.end()));
  }
  return records;
}

TEST(MetricsLog, HasTheKeysOfTheFormat) {
  const std::string path = TestPath();
  auto log = MetricsLog::Open(path, 0);
  ASSERT_TRUE(log.ok()) << log.status();
  ASSERT_TRUE(log->Write(MetricsOf(1)).ok());
  ASSERT_TRUE(log->Write(EvalMetrics{1, "bo\"oks", 2.5, 1.25}).ok());
  const auto records = RecordsOf(path);
  ASSERT_EQ(records.size(), 2u);
  for (const char* key : {"step", "loss", "balance_loss", "z_loss", "grad_norm", "lr", "tokens",
                          "tokens_per_second", "step_ms", "mfu", "peak_bytes", "host_peak_bytes",
                          "checkpoint_stall_ms", "retries", "expert_load_max_over_mean"}) {
    EXPECT_TRUE(records[0].contains(key)) << key;
  }
  EXPECT_TRUE(records[0]["tokens"].is_number_integer());
  EXPECT_EQ(records[0]["expert_load"][0]["tokens"], (std::vector<int64_t>{1, 0, 3}));
  EXPECT_EQ(ReadFile(path).value().substr(0, 10), R"({"step":1,)");
  EXPECT_EQ(records[1].dump(),
            R"({"eval":{"bits_per_byte":1.25,"domain":"bo\"oks","loss":2.5},"step":1})");
}

TEST(MetricsLog, NumbersReadBackToTheSameDouble) {
  const std::string path = TestPath();
  auto log = MetricsLog::Open(path, 0).value();
  std::mt19937_64 random(7);
  std::vector<double> values = {0.1, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 1e21 / 3, 123456};
  while (values.size() < 500) {
    const double value = std::bit_cast<double>(random());
    if (std::isfinite(value)) values.push_back(value);
  }
  for (const double value : values) ASSERT_TRUE(log.Write(StepMetrics{1, value}).ok());
  ASSERT_TRUE(log.Write(StepMetrics{1, NAN}).ok());
  const auto records = RecordsOf(path);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint64_t>(records[i]["loss"].get<double>()),
              std::bit_cast<uint64_t>(values[i]));
  }
  EXPECT_TRUE(records.back()["loss"].is_null());
}

TEST(MetricsLog, EachStepStandsThereOnceAfterAnyCrash) {
  const std::string path = TestPath();
  std::string whole;
  {
    auto log = MetricsLog::Open(path, 0).value();
    for (int64_t step = 1; step <= 10; ++step) {
      ASSERT_TRUE(log.Write(MetricsOf(step)).ok());
      ASSERT_TRUE(step % 2 == 1 || log.Write(EvalMetrics{step, "web", 1, 2}).ok());
    }
    whole = ReadFile(path).value();
  }
  // The checkpoint is of step 4: all up to its evaluation is on disk, and any part of the rest.
  const size_t saved = whole.find("\n", whole.rfind("{\"step\":4,")) + 1;
  for (size_t size = saved; size <= whole.size(); size += 7) {
    ASSERT_TRUE(WriteFileAtomically(path, whole.substr(0, size)).ok());
    auto log = MetricsLog::Open(path, 4);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ(ReadFile(path).value(), whole.substr(0, saved));
    for (int64_t step = 5; step <= 10; ++step) {
      ASSERT_TRUE(log->Write(MetricsOf(step)).ok());
      ASSERT_TRUE(step % 2 == 1 || log->Write(EvalMetrics{step, "web", 1, 2}).ok());
    }
    ASSERT_EQ(ReadFile(path).value(), whole) << "cut at " << size;
  }
}

TEST(MetricsLog, AFreshRunBeginsWithAnEmptyFile) {
  const std::string path = TestPath();
  ASSERT_TRUE(WriteFileAtomically(path, "{\"step\":1}\n\0\0\0{\"st").ok());
  ASSERT_TRUE(MetricsLog::Open(path, 0).ok());
  EXPECT_EQ(ReadFile(path).value(), "");
}

TEST(Metrics, LoadIsTheWorstLayers) {
  EXPECT_EQ(MaxOverMeanLoad({}), 0);
  EXPECT_EQ(MaxOverMeanLoad({{0, {0, 0}}}), 0);
  EXPECT_EQ(MaxOverMeanLoad({{0, {2, 2}}, {1, {0, 4, 2, 2}}}), 2);
}

TEST(TensorBoard, KnownChecksum) {
  EXPECT_EQ(MaskedCrc32c(std::as_bytes(std::span("123456789", 9))), 0xc78ab0e5u);
}

// A reader of its own: the frames by hand, the events by the proto.
std::vector<tensorboard::Event> EventsOf(const std::string& path) {
  const std::string content = ReadFile(path).value();
  std::vector<tensorboard::Event> events;
  for (size_t at = 0; at < content.size();) {
    uint64_t length;
    uint32_t length_crc, data_crc;
    std::memcpy(&length, &content[at], 8);
    std::memcpy(&length_crc, &content[at + 8], 4);
    const std::string data = content.substr(at + 12, length);
    std::memcpy(&data_crc, &content[at + 12 + length], 4);
    EXPECT_EQ(length_crc, MaskedCrc32c(std::as_bytes(std::span(&length, 1))));
    EXPECT_EQ(data_crc, MaskedCrc32c(std::as_bytes(std::span(data))));
    EXPECT_TRUE(events.emplace_back().ParseFromString(data));
    at += 16 + length;
  }
  return events;
}

TEST(TensorBoard, FramesTheEventsOfAnAttempt) {
  auto writer = TensorBoardWriter::Create(TestPath(), 3, 20);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Write(MetricsOf(21)).ok());
  ASSERT_TRUE(writer->Write(EvalMetrics{21, "web", 1.5, 2.5}).ok());
  EXPECT_NE(writer->path().find("/events.out.tfevents."), std::string::npos);
  const auto events = EventsOf(writer->path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(events[1].step(), 21);
  EXPECT_EQ(events[2].summary().value(0).tag(), "train/loss");
  EXPECT_EQ(events[2].summary().value(0).simple_value(), static_cast<float>(3.0 / 21));
  EXPECT_EQ(events[3].summary().value(1).tag(), "eval/web/bits_per_byte");
  EXPECT_GT(events[3].wall_time(), 1e9);

  // The bytes of the first event after its wall time: field 3, a string of 13 bytes.
  const std::string content = ReadFile(writer->path()).value();
  EXPECT_EQ(content[12], '\x09') << "field 1, a double";
  EXPECT_EQ(content.substr(12 + 9, 15),
            "\x1a\x0d"
            "brain.Event:2");
}

TEST(Console, OneLineAStep) {
  StepConsole console(1000);
  StepMetrics m = MetricsOf(100);
  m.loss = 3.14159;
  m.step_ms = 2000;
  m.tokens_per_second = 158900.4;
  m.mfu = 0.412;
  m.lr = 3e-4;
  m.peak_bytes = 3 << 29;
  m.expert_load = {{0, {1, 3}}};
  EXPECT_EQ(console.Line(m),
            "step 100/1000 | loss 3.1416 | balance 0.0000 | z 0.0000 | grad norm 0.000 | lr "
            "3.00e-04 | 2000.0 ms | 158,900 tok/s | MFU 41.2% | load max/mean 1.50 | mem 1.50 GiB "
            "| left 30:00");
}

TEST(Console, Formats) {
  EXPECT_EQ(FormatDuration(7865), "2:11:05");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatWithCommas(-1234567), "-1,234,567");
  EXPECT_EQ(FormatWithCommas(-123), "-123");
  EXPECT_EQ(ProgressBar::Draw("tokenize", 512, 1024, 10),
            "tokenize [###############---------------]  50%  512 B  left 0:10");
}

}  // namespace
}  // namespace moebius
