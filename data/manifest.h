// dataset.json: what a folder of prepared data holds and what it was made from
// (docs/formats/dataset.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/shard.h"

namespace moebius {

struct SplitRecord {
  int64_t num_bytes = 0;  // of text
  ShardRecord shard;
};

struct DomainRecord {
  std::string name;
  SplitRecord train, held_out;
};

struct Manifest {
  static constexpr char kFileName[] = "dataset.json";

  nlohmann::ordered_json spec;  // what was asked for, inputs and their checksums included
  std::string tokenizer_file;
  FileRecord tokenizer;
  int64_t vocab_size = 0;
  std::vector<DomainRecord> domains;

  // The file's content. It ends with a checksum of itself, and there is one way to write a
  // manifest, so that every flipped bit is found.
  std::string ToJson() const;

  // Reads dataset.json of a folder. NotFound if there is none; DataLoss names the file and what is
  // damaged.
  static absl::StatusOr<Manifest> Read(const std::string& folder);
};

// Where a split's shard lies: "<folder>/<domain>.train" or ".heldout".
std::string TrainPrefix(const std::string& folder, const std::string& domain);
std::string HeldOutPrefix(const std::string& folder, const std::string& domain);

}  // namespace moebius
