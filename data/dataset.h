// A folder of prepared data: a tokenizer and, for each domain, the token shards of its training and
// its held-out text. The bytes are described in docs/formats/dataset.md.
//
//   dataset.json                      manifest: sizes, counts, checksums, what it was made from
//   tokenizer.json | tokenizer.model
//   <domain>.train.{bin,idx}  <domain>.heldout.{bin,idx}
//   <domain>.heldout.txt              the held-out text itself, for comparison with other programs
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/shard.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// One side of a domain. On disk each document is the separator followed by its tokens, so that
// every token of a document, its first included, is predicted, and its end as the next separator.
struct Split {
  int64_t num_bytes = 0;  // of text: what bits per byte divide by
  Shard shard;
};

struct Domain {
  std::string name;
  Split train, held_out;
};

// Thread-safe; movable.
class Dataset {
 public:
  // Reads the manifest and opens the tokenizer and every shard, checking all bytes against their
  // checksums and all ids against the vocabulary: one pass over the data, at the speed of memory
  // once it is cached. Errors name the file and the field.
  static absl::StatusOr<Dataset> Open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const std::vector<Domain>& domains() const { return domains_; }  // in the order of the spec
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t vocab_size() const { return tokenizer_->vocab_size(); }

  // Names this data: a checksum of the manifest, which holds those of all other files.
  uint64_t checksum() const { return checksum_; }

 private:
  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<Domain> domains_;
  uint64_t checksum_ = 0;
};

}  // namespace moebius
