#include "configs/load.h"

#include <google/protobuf/text_format.h>

#include "absl/strings/str_cat.h"
#include "configs/config_text.h"
#include "configs/fields.h"
#include "configs/overrides.h"
#include "configs/source_map.h"
#include "configs/text_parser.h"
#include "configs/validate.h"

namespace moebius {

namespace {

// Defaults that are functions of other fields.
void ResolveDerived(RunConfig* config) {
  ModelConfig* model = config->mutable_model();
  if (model->num_kv_heads() == 0) model->set_num_kv_heads(model->num_heads());
  const bool divides = model->num_heads() > 0 && model->hidden_size() % model->num_heads() == 0;
  if (model->head_dim() == 0 && divides) {
    model->set_head_dim(model->hidden_size() / model->num_heads());
  }
  DataConfig* data = config->mutable_data();
  if (data->dir().empty()) data->set_dir(absl::StrCat(config->run().dir(), "/data"));
}

}  // namespace

absl::StatusOr<RunConfig> ParseRunConfig(const std::string& name, const std::string& text,
                                         const std::vector<std::string>& overrides) {
  const absl::StatusOr<std::string> plain = PlainText(name, text);
  if (!plain.ok()) return plain.status();
  RunConfig config;
  SourceMap origins;
  std::vector<LocatedError> errors;
  ParseText({.source = name, .base_path = "", .text = *plain}, &config, &origins, &errors);
  if (errors.empty() && config.ByteSizeLong() == 0 && overrides.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": is empty, must at least say run, train, model and data (see configs/recipes)"));
  }
  if (!errors.empty()) return ErrorStatus(name, std::move(errors));
  for (size_t i = 0; i < overrides.size(); ++i) {
    ApplyOverride(overrides[i], static_cast<int>(i) + 1, &config, &origins, &errors);
  }
  if (!errors.empty()) return ErrorStatus(name, std::move(errors));
  FillDefaults(&config);
  ResolveDerived(&config);
  for (const ConfigError& error : FindErrors(config)) {
    errors.push_back({origins.Find(error.path), error});
  }
  if (!errors.empty()) return ErrorStatus(name, std::move(errors));
  return config;
}

absl::StatusOr<RunConfig> LoadRunConfig(const std::string& file,
                                        const std::vector<std::string>& overrides) {
  const absl::StatusOr<std::string> text = ReadConfigText(file);
  if (!text.ok()) return text.status();
  return ParseRunConfig(file, *text, overrides);
}

std::string PrintConfig(const RunConfig& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

}  // namespace moebius
