#include "data/manifest.h"

#include <charconv>

#include "core/base/checksum.h"
#include "core/base/files.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "moebius dataset 1";
constexpr char kChecksumKey[] = "checksum";

Json ToJsonValue(const FileRecord& file) {
  return {{"bytes", file.bytes}, {"checksum", ChecksumText(file.checksum)}};
}

Json ToJsonValue(const SplitRecord& split) {
  return {{"text_bytes", split.num_bytes},
          {"documents", split.shard.num_documents},
          {"tokens", split.shard.num_tokens},
          {"bin", ToJsonValue(split.shard.bin)},
          {"idx", ToJsonValue(split.shard.idx)}};
}

// The JSON's types are checked by the library, which throws; Read catches.
FileRecord ParseFile(const Json& json) {
  FileRecord file;
  file.bytes = json.at("bytes").get<int64_t>();
  const auto text = json.at("checksum").get<std::string>();
  std::from_chars(text.data() + text.find(':') + 1, text.data() + text.size(), file.checksum, 16);
  return file;
}

SplitRecord ParseSplit(const Json& json) {
  SplitRecord split;
  split.num_bytes = json.at("text_bytes").get<int64_t>();
  split.shard.num_documents = json.at("documents").get<int64_t>();
  split.shard.num_tokens = json.at("tokens").get<int64_t>();
  split.shard.bin = ParseFile(json.at("bin"));
  split.shard.idx = ParseFile(json.at("idx"));
  return split;
}

std::string WithChecksum(Json json) {
  json[kChecksumKey] = ChecksumText(Checksum(json.dump(1)));
  return json.dump(1) + "\n";
}

}  // namespace

std::string Manifest::ToJson() const {
  Json tokenizer_json = ToJsonValue(tokenizer);
  tokenizer_json["file"] = tokenizer_file;
  tokenizer_json["vocab_size"] = vocab_size;
  Json domain_list = Json::array();
  for (const DomainRecord& domain : domains) {
    domain_list.push_back({{"name", domain.name},
                           {"train", ToJsonValue(domain.train)},
                           {"heldout", ToJsonValue(domain.held_out)}});
  }
  return WithChecksum({{"format", kFormat},
                       {"spec", spec},
                       {"tokenizer", tokenizer_json},
                       {"domains", domain_list}});
}

absl::StatusOr<Manifest> Manifest::Read(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kFileName);
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  const auto damaged = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(path, ": ", what));
  };
  try {
    Json json = Json::parse(content);
    if (json.at("format") != kFormat) {
      return damaged(
          absl::StrCat("format is ", json.at("format").dump(), ", must be \"", kFormat, "\""));
    }
    json.erase(kChecksumKey);
    if (WithChecksum(json) != content)
      return damaged("the checksum does not fit: the file is damaged");
    Manifest manifest;
    manifest.spec = json.at("spec");
    manifest.tokenizer = ParseFile(json.at("tokenizer"));
    manifest.tokenizer_file = json.at("tokenizer").at("file").get<std::string>();
    manifest.vocab_size = json.at("tokenizer").at("vocab_size").get<int64_t>();
    for (const Json& domain : json.at("domains")) {
      manifest.domains.push_back({domain.at("name").get<std::string>(),
                                  ParseSplit(domain.at("train")),
                                  ParseSplit(domain.at("heldout"))});
    }
    return manifest;
  } catch (const Json::exception& error) {
    return damaged(error.what());
  }
}

std::string TrainPrefix(const std::string& folder, const std::string& domain) {
  return absl::StrCat(folder, "/", domain, ".train");
}

std::string HeldOutPrefix(const std::string& folder, const std::string& domain) {
  return absl::StrCat(folder, "/", domain, ".heldout");
}

}  // namespace moebius
