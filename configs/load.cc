#include "configs/load.h"

#include <google/protobuf/text_format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "configs/fields.h"
#include "configs/overrides.h"
#include "configs/source_map.h"
#include "configs/text_parser.h"
#include "configs/validate.h"

namespace moebius {

namespace {

constexpr size_t kMaxBytes = 1 << 20;

// At most kMaxBytes + 1 bytes, so that neither a wrong file nor a device fills the memory.
absl::StatusOr<std::string> ReadText(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) != 0) {
    const std::string reason = absl::StrCat(file, ": cannot be read: ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(reason) : absl::InvalidArgumentError(reason);
  }
  if (S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is a folder, must be a config file"));
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": cannot be read: ", std::strerror(errno)));
  }
  std::string text(kMaxBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

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
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": is larger than ", kMaxBytes,
                                                   " bytes, must be a config in text format"));
  }
  if (text.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": holds a NUL byte, must be a config in text format"));
  }
  constexpr char kByteOrderMark[] = "\xEF\xBB\xBF";
  RunConfig config;
  SourceMap origins;
  std::vector<LocatedError> errors;
  ParseText({.source = name,
             .base_path = "",
             .text = std::string(absl::StripPrefix(text, kByteOrderMark))},
            &config, &origins, &errors);
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
  const absl::StatusOr<std::string> text = ReadText(file);
  if (!text.ok()) return text.status();
  return ParseRunConfig(file, *text, overrides);
}

std::string PrintConfig(const RunConfig& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

}  // namespace moebius
