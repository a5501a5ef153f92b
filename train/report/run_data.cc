#include "train/report/run_data.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPoints = 1000;
constexpr size_t kMaxColumns = 240;

constexpr const char* kCurves[] = {"step",
                                   "loss",
                                   "balance_loss",
                                   "z_loss",
                                   "grad_norm",
                                   "lr",
                                   "tokens",
                                   "mfu",
                                   "tokens_per_second",
                                   "step_ms",
                                   "peak_bytes",
                                   "host_peak_bytes",
                                   "expert_load_max_over_mean"};

struct Records {
  std::vector<Json> steps;
  Json evaluations = Json::array();
  int64_t unreadable_lines = 0;
};

bool IsStep(const Json& record) {
  return record.is_object() && record.contains("step") && record["step"].is_number() &&
         record.contains("loss");
}

bool IsEvaluation(const Json& record) {
  return record.is_object() && record.contains("step") && record["step"].is_number() &&
         record.contains("eval") && record["eval"].is_object();
}

Records ReadRecords(absl::string_view content) {
  Records records;
  // The last line may be half written: the run goes on.
  content = content.substr(0, content.rfind('\n') + 1);
  for (absl::string_view line : absl::StrSplit(content, '\n', absl::SkipEmpty())) {
    Json record = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (IsEvaluation(record)) {
      Json evaluation = record["eval"];
      evaluation["step"] = record["step"];
      records.evaluations.push_back(std::move(evaluation));
    } else if (IsStep(record)) {
      records.steps.push_back(std::move(record));
    } else {
      ++records.unreadable_lines;
    }
  }
  return records;
}

// About `max` of them, the last one included.
std::vector<const Json*> Thin(const std::vector<Json>& records, size_t max) {
  const size_t stride = (records.size() + max - 1) / max;
  std::vector<const Json*> kept;
  for (size_t i = (records.size() - 1) % stride; i < records.size(); i += stride) {
    kept.push_back(&records[i]);
  }
  return kept;
}

Json NumberOrNull(const Json& record, const char* key) {
  const auto value = record.find(key);
  return value != record.end() && value->is_number() ? *value : Json();
}

Json Curves(const std::vector<const Json*>& records) {
  Json curves = Json::object();
  for (const char* key : kCurves) {
    Json& curve = curves[key] = Json::array();
    for (const Json* record : records) curve.push_back(NumberOrNull(*record, key));
  }
  return curves;
}

// Of the layer `layer`, each expert's load over the mean one; zeros where the record has none.
Json RelativeLoads(const Json& record, const Json& layer, size_t num_experts) {
  std::vector<double> tokens;
  for (const Json& load : record.value("expert_load", Json::array())) {
    if (load.value("layer", Json()) == layer) tokens = load.value("tokens", tokens);
  }
  tokens.resize(num_experts);
  const double mean =
      std::accumulate(tokens.begin(), tokens.end(), 0.0) / static_cast<double>(num_experts);
  Json row = Json::array();
  for (const double count : tokens) {
    row.push_back(mean > 0 ? std::round(count / mean * 1000) / 1000 : 0);
  }
  return row;
}

Json Loads(const std::vector<const Json*>& records) {
  Json loads = Json::array();
  for (const Json& of_layer : records.back()->value("expert_load", Json::array())) {
    const Json layer = of_layer.value("layer", Json());
    const size_t num_experts = of_layer.value("tokens", Json::array()).size();
    if (num_experts == 0) continue;
    Json rows = Json::array();
    for (const Json* record : records) rows.push_back(RelativeLoads(*record, layer, num_experts));
    loads.push_back({{"layer", layer}, {"rows", std::move(rows)}});
  }
  return loads;
}

Json Status(const RunPaths& paths) {
  const auto text = ReadFile(paths.status());
  if (!text.ok()) return nullptr;
  Json status = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return status.is_object() ? status : Json();
}

Json BuildData(const RunPaths& paths, const Records& records) {
  const auto points = Thin(records.steps, kMaxPoints);
  const auto columns = Thin(records.steps, kMaxColumns);
  Json load_steps = Json::array();
  for (const Json* record : columns) load_steps.push_back((*record)["step"]);
  return {{"steps", Curves(points)},
          {"stride", (records.steps.size() + kMaxPoints - 1) / kMaxPoints},
          {"evaluations", records.evaluations},
          {"loads", Loads(columns)},
          {"load_steps", std::move(load_steps)},
          {"status", Status(paths)},
          {"unreadable_lines", records.unreadable_lines},
          {"has_config", std::filesystem::exists(paths.config())},
          {"has_sample", std::filesystem::exists(paths.sample())}};
}

}  // namespace

absl::StatusOr<std::string> RunDataJson(const RunPaths& paths) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(paths.metrics()));
  const Records records = ReadRecords(content);
  if (records.steps.empty()) {
    return absl::DataLossError(absl::StrCat(paths.metrics(), ": has no record of a step"));
  }
  try {
    const std::string text =
        BuildData(paths, records).dump(-1, ' ', false, Json::error_handler_t::replace);
    return absl::StrReplaceAll(text, {{"<", "\\u003c"}});
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(paths.metrics(), ": ", error.what()));
  }
}

}  // namespace moebius
