#include "tests/bench/step_report.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "train/metrics/console.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

struct Summary {
  double best = 0, median = 0;
};

Summary SummaryOf(std::vector<double> seconds) {
  CHECK(!seconds.empty());
  std::ranges::sort(seconds);
  const size_t half = seconds.size() / 2;
  const double median =
      seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  return {.best = seconds.front(), .median = median};
}

Json SecondsJson(const std::vector<double>& seconds) {
  const Summary summary = SummaryOf(seconds);
  return {{"best_seconds", summary.best}, {"median_seconds", summary.median}};
}

// amount / time / unit, at the best and the median time.
Json RateJson(const Summary& seconds, double amount, double unit = 1) {
  return {{"best", amount / seconds.best / unit}, {"median", amount / seconds.median / unit}};
}

std::vector<std::pair<std::string, TimedOp>> LongestFirst(const StepMeasurement& measured) {
  std::vector<std::pair<std::string, TimedOp>> ops(measured.ops.begin(), measured.ops.end());
  std::ranges::stable_sort(
      ops, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return ops;
}

double Sum(const std::vector<double>& seconds) {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

// What the first rank's step takes at least: each op at the limit that applies to it, one after
// the other.
double RooflineSeconds(const StepMeasurement& measured) {
  double sum = 0;
  for (const auto& [name, op] : measured.ops) sum += op.least_seconds;
  return sum / static_cast<double>(measured.ops_seconds.size());
}

Json OpsJson(const StepMeasurement& measured) {
  const auto steps = static_cast<double>(measured.ops_seconds.size());
  Json ops = Json::array();
  for (const auto& [name, op] : LongestFirst(measured)) {
    ops.push_back({{"op", name},
                   {"calls", static_cast<double>(op.calls) / steps},
                   {"seconds", op.seconds / steps},
                   {"flops", op.flops / steps},
                   {"bytes", op.bytes / steps},
                   {"share_of_limit", op.least_seconds / op.seconds}});
  }
  return ops;
}

std::string MachineText(const StepMeasurement& measured) {
  std::string text;
  absl::StrAppendFormat(&text, "%-18s %s\n", "device", measured.device);
  absl::StrAppendFormat(&text, "%-18s %s, %s, %d x %d threads\n", "run", measured.config,
                        measured.precision, measured.ranks, measured.threads_per_rank);
  absl::StrAppendFormat(&text, "%-18s FP32 %.1f GFLOP/s, BF16 %.1f GFLOP/s, %.1f GB/s (%s)\n",
                        "limits", measured.limits.fp32_flops / 1e9,
                        measured.limits.bf16_flops / 1e9, measured.limits.bandwidth / 1e9,
                        measured.limits.source);
  return text;
}

std::string OpsText(const StepMeasurement& measured) {
  const auto steps = static_cast<double>(measured.ops_seconds.size());
  const double all = Sum(measured.ops_seconds);
  std::string text = absl::StrFormat("%-28s %9s %6s %10s %8s %8s\n", "op of rank 0, mean", "ms",
                                     "share", "GFLOP/s", "GB/s", "of limit");
  for (const auto& [name, op] : LongestFirst(measured)) {
    absl::StrAppendFormat(&text, "%-28s %9.3f %5.1f%% %10.1f %8.1f %7.0f%%\n", name,
                          1e3 * op.seconds / steps, 100 * op.seconds / all,
                          op.flops / op.seconds / 1e9, op.bytes / op.seconds / 1e9,
                          100 * op.least_seconds / op.seconds);
  }
  return text;
}

}  // namespace

Json StepJson(const StepMeasurement& measured) {
  const Summary step = SummaryOf(measured.step_seconds),
                update = SummaryOf(measured.update_seconds);
  const double roofline = RooflineSeconds(measured);
  Json step_json = SecondsJson(measured.step_seconds);
  step_json["seconds"] = measured.step_seconds;
  Json update_json = SecondsJson(measured.update_seconds);
  update_json["bytes"] = measured.update_bytes;
  update_json["bytes_per_second"] = RateJson(update, measured.update_bytes);
  update_json["share_of_bandwidth"] =
      RateJson(update, measured.update_bytes, measured.limits.bandwidth);
  return {
      {"device", measured.device},
      {"config", measured.config},
      {"precision", measured.precision},
      {"ranks", measured.ranks},
      {"threads_per_rank", measured.threads_per_rank},
      {"limits",
       {{"fp32_flops_per_second", measured.limits.fp32_flops},
        {"bf16_flops_per_second", measured.limits.bf16_flops},
        {"bytes_per_second", measured.limits.bandwidth},
        {"source", measured.limits.source}}},
      {"tokens", measured.tokens},
      {"flops", measured.flops},
      {"peak_flops_per_second", measured.peak_flops()},
      {"step", step_json},
      {"tokens_per_second", RateJson(step, measured.tokens)},
      {"mfu", RateJson(step, measured.flops, measured.peak_flops())},
      {"roofline", {{"seconds", roofline}, {"share", RateJson(step, roofline)}}},
      {"without_update", SecondsJson(measured.before_update_seconds)},
      {"update", update_json},
      {"peak_bytes", {{"device", measured.device_peak_bytes}, {"host", measured.host_peak_bytes}}},
      {"ops_seconds", measured.ops_seconds},
      {"ops", OpsJson(measured)}};
}

std::string StepText(const StepMeasurement& measured) {
  const Summary step = SummaryOf(measured.step_seconds),
                without = SummaryOf(measured.before_update_seconds),
                update = SummaryOf(measured.update_seconds);
  const double of_peak = measured.flops / measured.peak_flops();
  const double of_bandwidth = measured.update_bytes / measured.limits.bandwidth;
  std::string text = MachineText(measured);
  absl::StrAppendFormat(&text, "%-18s %12s %12s\n", "", "best", "median");
  const auto row = [&](const char* name, double best, double median, int digits) {
    absl::StrAppendFormat(&text, "%-18s %12.*f %12.*f\n", name, digits, best, digits, median);
  };
  row("step ms", 1e3 * step.best, 1e3 * step.median, 2);
  row("tokens/s", measured.tokens / step.best, measured.tokens / step.median, 0);
  row("MFU %", 100 * of_peak / step.best, 100 * of_peak / step.median, 1);
  const double roofline = RooflineSeconds(measured);
  row("roofline %", 100 * roofline / step.best, 100 * roofline / step.median, 1);
  row("without update ms", 1e3 * without.best, 1e3 * without.median, 2);
  row("update alone ms", 1e3 * update.best, 1e3 * update.median, 2);
  row("update GB/s", measured.update_bytes / update.best / 1e9,
      measured.update_bytes / update.median / 1e9, 1);
  row("update % of limit", 100 * of_bandwidth / update.best, 100 * of_bandwidth / update.median, 0);
  absl::StrAppendFormat(&text, "%-18s device %s, host %s\n", "peak memory",
                        FormatBytes(static_cast<int64_t>(measured.device_peak_bytes)),
                        FormatBytes(static_cast<int64_t>(measured.host_peak_bytes)));
  return text + OpsText(measured);
}

}  // namespace moebius
