#include "data/dataset.h"

#include "core/base/checksum.h"
#include "data/manifest.h"
#include "data/tokenizer/load.h"

namespace moebius {
namespace {

absl::StatusOr<Split> OpenSplit(const std::string& prefix, const SplitRecord& record,
                                int64_t vocab_size) {
  Split split;
  split.num_bytes = record.num_bytes;
  ASSIGN_OR_RETURN(split.shard, Shard::Open(prefix, vocab_size, &record.shard));
  return split;
}

}  // namespace

absl::StatusOr<Dataset> Dataset::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(const Manifest manifest, Manifest::Read(folder));
  Dataset dataset;
  dataset.folder_ = folder;
  dataset.checksum_ = Checksum(manifest.ToJson());

  ASSIGN_OR_RETURN(const MappedFile file,
                   MappedFile::Open(absl::StrCat(folder, "/", manifest.tokenizer_file)));
  RETURN_IF_ERROR(CheckRecord(file, manifest.tokenizer));
  ASSIGN_OR_RETURN(dataset.tokenizer_, LoadTokenizer(folder));
  if (dataset.vocab_size() != manifest.vocab_size) {
    return absl::DataLossError(absl::StrCat(file.path(), ": has ", dataset.vocab_size(),
                                            " tokens, the manifest says ", manifest.vocab_size));
  }
  for (const DomainRecord& record : manifest.domains) {
    Domain domain;
    domain.name = record.name;
    ASSIGN_OR_RETURN(domain.train, OpenSplit(TrainPrefix(folder, record.name), record.train,
                                             manifest.vocab_size));
    ASSIGN_OR_RETURN(domain.held_out, OpenSplit(HeldOutPrefix(folder, record.name), record.held_out,
                                                manifest.vocab_size));
    dataset.domains_.push_back(std::move(domain));
  }
  return dataset;
}

}  // namespace moebius
