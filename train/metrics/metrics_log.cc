#include "train/metrics/metrics_log.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

bool BelongsTo(absl::string_view line, int64_t last_step) {
  const Json record = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return false;
  const auto step = record.find("step");
  return step != record.end() && step->is_number_integer() && step->get<int64_t>() <= last_step;
}

absl::Status Repair(const std::string& path, int64_t resumed_step) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  std::string kept;
  for (absl::string_view line : absl::StrSplit(content, '\n')) {
    if (BelongsTo(line, resumed_step)) absl::StrAppend(&kept, line, "\n");
  }
  return kept == content ? absl::OkStatus() : WriteFileAtomically(path, kept);
}

}  // namespace

absl::StatusOr<MetricsLog> MetricsLog::Open(const std::string& path, int64_t resumed_step) {
  if (std::filesystem::exists(path)) RETURN_IF_ERROR(Repair(path, resumed_step));
  ASSIGN_OR_RETURN(OutputFile file, OutputFile::Append(path));
  return MetricsLog(std::move(file));
}

absl::Status MetricsLog::Write(const StepMetrics& metrics) {
  Json record = {{"step", metrics.step}};
  for (const auto& [key, value] : Scalars(metrics)) record[key] = value;
  record["tokens"] = metrics.tokens;
  record["peak_bytes"] = metrics.peak_bytes;
  record["host_peak_bytes"] = metrics.host_peak_bytes;
  record["retries"] = metrics.retries;
  Json& loads = record["expert_load"] = Json::array();
  for (const LayerLoad& load : metrics.expert_load) {
    loads.push_back({{"layer", load.layer}, {"tokens", load.tokens}});
  }
  return file_.Write(record.dump() + "\n");
}

absl::Status MetricsLog::Write(const EvalMetrics& metrics) {
  const Json record = {{"step", metrics.step},
                       {"eval",
                        {{"domain", metrics.domain},
                         {"loss", metrics.loss},
                         {"bits_per_byte", metrics.bits_per_byte}}}};
  return file_.Write(record.dump() + "\n");
}

}  // namespace moebius
