// The files that a dataset is made from.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/shard.h"
#include "data/spec.h"
#include "data/split.h"

namespace moebius {

struct Input {
  std::string path;
  FileRecord record;
};

struct DomainInput {
  std::string name;
  std::vector<Input> files;
  std::vector<DocumentInfo> documents;  // filled by a first pass over the text
};

// Expands the patterns of each domain and takes each file's size and checksum.
absl::StatusOr<std::vector<DomainInput>> FindInputs(const DataSpec& spec);

// Everything that decides the dataset's bytes; keys are those of the config.
nlohmann::ordered_json Describe(const DataSpec& spec, std::span<const DomainInput> inputs);

// "data.held_out_fraction was 0.05, is 0.1": the first field that differs. Empty if none does.
std::string FirstDifference(const nlohmann::ordered_json& before,
                            const nlohmann::ordered_json& now);

}  // namespace moebius
