#include "configs/cluster.h"

#include <google/protobuf/text_format.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "configs/config_text.h"
#include "configs/fields.h"
#include "configs/rules.h"
#include "configs/text_parser.h"

namespace moebius {
namespace {

// An op has one entry for each precision.
void CheckOps(const DeviceConfig& device, Errors* errors) {
  std::set<std::pair<std::string, int>> seen;
  for (int i = 0; i < device.ops_size(); ++i) {
    const OpConfig& op = device.ops(i);
    Require(seen.insert({op.name(), op.compute()}).second, absl::StrCat("device.ops[", i, "].name"),
            absl::StrCat("\"", op.name(), "\" is given twice for one precision, give it once"),
            errors);
  }
}

}  // namespace

absl::StatusOr<ClusterConfig> ParseClusterConfig(const std::string& name, const std::string& text) {
  const absl::StatusOr<std::string> plain = PlainText(name, text);
  if (!plain.ok()) return plain.status();
  ClusterConfig cluster;
  SourceMap origins;
  std::vector<LocatedError> errors;
  ParseText({.source = name, .base_path = "", .text = *plain}, &cluster, &origins, &errors);
  if (!errors.empty()) return ErrorStatus(name, std::move(errors));
  FillDefaults(&cluster);
  Errors broken;
  CheckFields(cluster, "", &broken);
  if (broken.empty()) CheckOps(cluster.device(), &broken);
  for (const ConfigError& error : broken) errors.push_back({origins.Find(error.path), error});
  if (!errors.empty()) return ErrorStatus(name, std::move(errors));
  return cluster;
}

absl::StatusOr<ClusterConfig> LoadClusterConfig(const std::string& file) {
  const absl::StatusOr<std::string> text = ReadConfigText(file);
  if (!text.ok()) return text.status();
  return ParseClusterConfig(file, *text);
}

std::string PrintCluster(const ClusterConfig& cluster) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(cluster, &text);
  return text;
}

}  // namespace moebius
