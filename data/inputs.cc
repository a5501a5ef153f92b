#include "data/inputs.h"

#include <algorithm>
#include <filesystem>

#include "core/base/checksum.h"
#include "core/base/files.h"
#include "data/text_reader.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

const char* KindName(TokenizerSpec::Kind kind) {
  switch (kind) {
    case TokenizerSpec::Kind::kBytes:
      return "BYTES";
    case TokenizerSpec::Kind::kBpe:
      return "SENTENCEPIECE BPE";
    case TokenizerSpec::Kind::kUnigram:
      return "SENTENCEPIECE UNIGRAM";
  }
  return "";
}

}  // namespace

absl::StatusOr<std::vector<DomainInput>> FindInputs(const DataSpec& spec) {
  std::vector<DomainInput> domains;
  for (const DomainSpec& domain : spec.domains) {
    DomainInput input{domain.name, {}, {}};
    ASSIGN_OR_RETURN(const std::vector<std::string> paths, ExpandPatterns(domain.files));
    for (const std::string& path : paths) {
      ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
      const auto bytes = static_cast<int64_t>(file.bytes().size());
      input.files.push_back({path, {bytes, Checksum(file.bytes())}});
    }
    domains.push_back(std::move(input));
  }
  return domains;
}

Json Describe(const DataSpec& spec, std::span<const DomainInput> inputs) {
  Json domains = Json::array();
  for (const DomainInput& domain : inputs) {
    Json files = Json::array();
    for (const Input& file : domain.files) {
      files.push_back({{"name", std::filesystem::path(file.path).filename().string()},
                       {"bytes", file.record.bytes},
                       {"checksum", ChecksumText(file.record.checksum)}});
    }
    domains.push_back({{"name", domain.name}, {"files", files}});
  }
  Json tokenizer = {{"kind", KindName(spec.tokenizer.kind)}};
  if (spec.tokenizer.kind != TokenizerSpec::Kind::kBytes) {
    tokenizer["vocab_size"] = spec.tokenizer.vocab_size;
    tokenizer["training_bytes"] = spec.tokenizer.training_bytes;
  }
  return {{"domains", domains},
          {"tokenizer", tokenizer},
          {"held_out_fraction", spec.held_out_fraction},
          {"held_out_max_bytes", spec.held_out_max_bytes},
          {"seed", spec.seed},
          {"text_key", spec.text_key}};
}

std::string FirstDifference(const Json& before, const Json& now) {
  const Json was = before.flatten(), is = now.flatten();
  const auto value = [](const Json& json, const std::string& key) {
    return json.contains(key) ? json[key].dump() : "not there";
  };
  for (const Json& fields : {is, was}) {
    for (const auto& [key, ignored] : fields.items()) {
      if (value(was, key) == value(is, key)) continue;
      std::string name = "data" + key;
      std::ranges::replace(name, '/', '.');
      return absl::StrCat(name, " was ", value(was, key), ", is ", value(is, key));
    }
  }
  return "";
}

}  // namespace moebius
