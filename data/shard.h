// Token shards in Megatron's indexed format: PREFIX.bin holds the tokens back to back, PREFIX.idx
// the documents (docs/formats/dataset.md; little-endian; source: Megatron-LM indexed_dataset.py).
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "core/base/checksum.h"
#include "core/base/files.h"
#include "core/base/status.h"

namespace moebius {

// Size and checksum of one file, as a manifest stores them.
struct FileRecord {
  int64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3
  bool operator==(const FileRecord&) const = default;
};

struct ShardRecord {
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  FileRecord bin, idx;
  bool operator==(const ShardRecord&) const = default;
};

// Writes one shard, document by document. Ids take 16 bits when vocab_size < 65500, else 32.
class ShardWriter {
 public:
  static absl::StatusOr<ShardWriter> Create(const std::string& prefix, int64_t vocab_size);

  // REQUIRES: ids in [0, vocab_size), at most 2^31 - 1 of them.
  absl::Status Append(std::span<const int32_t> document);

  // Writes the index and flushes both files to disk. The writer is used up.
  absl::StatusOr<ShardRecord> Finish();

 private:
  ShardWriter(const std::string& prefix, int64_t vocab_size);
  absl::Status WriteBin(std::span<const std::byte> bytes);

  std::string prefix_;
  int64_t vocab_size_;
  std::ofstream bin_;
  StreamingChecksum bin_checksum_;
  std::vector<std::byte> buffer_;
  std::vector<int32_t> lengths_;
  int64_t num_tokens_ = 0;
};

// A shard, mapped read-only. Thread-safe.
class Shard {
 public:
  // Checks everything before the first token is used: sizes, header, every length, pointer and
  // document index, every id against vocab_size and, when `record` is given, both checksums. That
  // reads the files once, at the speed of memory. Errors name file, offset and field.
  static absl::StatusOr<Shard> Open(const std::string& prefix, int64_t vocab_size,
                                    const ShardRecord* record = nullptr);

  int64_t num_tokens() const { return document_begins_.back(); }
  int64_t num_documents() const { return static_cast<int64_t>(document_begins_.size()) - 1; }

  // Index of the first token of each document, and num_tokens(). Increasing, except that documents
  // may be empty.
  std::span<const int64_t> document_begins() const { return document_begins_; }

  // Tokens [begin, begin + out.size()). REQUIRES: inside [0, num_tokens()].
  void Read(int64_t begin, std::span<int32_t> out) const;

 private:
  absl::Status ReadIndex(const MappedFile& idx);
  absl::Status CheckIds(int64_t vocab_size) const;

  MappedFile bin_;
  int token_bytes_ = 0;
  std::vector<int64_t> document_begins_;
};

// Error if the file's size or checksum is not the record's.
absl::Status CheckRecord(const MappedFile& file, const FileRecord& record);

}  // namespace moebius
