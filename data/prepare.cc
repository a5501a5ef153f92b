#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "core/base/checksum.h"
#include "core/base/files.h"
#include "data/inputs.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "data/split.h"
#include "data/text_reader.h"
#include "data/tokenizer/train.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;
using HeldOutHashes = std::unordered_set<uint64_t>;

// Progress over the bytes of all input files, for one pass over them.
class Meter {
 public:
  Meter(const PrepareProgress& progress, std::string what, std::span<const DomainInput> domains)
      : progress_(progress), what_(std::move(what)) {
    for (const DomainInput& domain : domains) {
      for (const Input& file : domain.files) total_ += file.record.bytes;
    }
  }
  void Show(int64_t offset) const { progress_(what_, done_ + offset, total_); }
  void FileDone(int64_t bytes) { done_ += bytes; }

 private:
  const PrepareProgress& progress_;
  const std::string what_;
  int64_t done_ = 0, total_ = 0;
};

// Whether the folder holds this dataset already; an error if it holds anything else.
absl::StatusOr<bool> IsPrepared(const std::string& folder, const Json& description) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error) || std::filesystem::is_empty(folder, error)) {
    return false;
  }
  absl::StatusOr<Manifest> manifest = Manifest::Read(folder);
  if (absl::IsNotFound(manifest.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder, ": data.dir is not empty and holds no prepared data; choose another"));
  }
  RETURN_IF_ERROR(manifest.status());
  if (manifest->spec == description) return true;
  return absl::FailedPreconditionError(absl::StrCat(
      folder,
      ": holds data that was prepared differently: ", FirstDifference(manifest->spec, description),
      "; remove the folder or choose another data.dir"));
}

// Calls fn(document, hash) for each document of a domain, cut into pieces, in order.
template <class Fn>
absl::Status ForEachDocument(const DataSpec& spec, const DomainInput& domain, Meter& meter,
                             const Fn& fn) {
  std::string text;
  for (const Input& file : domain.files) {
    ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(file.path, spec.text_key));
    for (;;) {
      ASSIGN_OR_RETURN(const bool more, reader.Next(text));
      if (!more) break;
      meter.Show(reader.offset());
      for (const std::string_view document : CutDocument(text)) {
        RETURN_IF_ERROR(fn(document, Checksum(document, spec.seed)));
      }
    }
    meter.FileDone(file.record.bytes);
    meter.Show(0);
  }
  return absl::OkStatus();
}

absl::Status Survey(const DataSpec& spec, std::vector<DomainInput>& domains,
                    const PrepareProgress& progress) {
  Meter meter(progress, "reading", domains);
  for (DomainInput& domain : domains) {
    RETURN_IF_ERROR(
        ForEachDocument(spec, domain, meter, [&](std::string_view document, uint64_t hash) {
          domain.documents.push_back({hash, static_cast<int64_t>(document.size())});
          return absl::OkStatus();
        }));
    if (domain.documents.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("data.domains: ", domain.name, " has no text in its files"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<HeldOutHashes> ChooseHeldOut(const DataSpec& spec,
                                            std::span<const DomainInput> domains) {
  HeldOutHashes held_out;
  for (const DomainInput& domain : domains) {
    HoldOut(domain.documents, spec.held_out_fraction, spec.held_out_max_bytes, held_out);
  }
  for (const DomainInput& domain : domains) {
    const auto held = std::ranges::count_if(domain.documents, [&](const DocumentInfo& document) {
      return held_out.contains(document.hash);
    });
    if (spec.held_out_fraction > 0 && held == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("data.domains: ", domain.name,
                       " has one document only, so none can be held out: give it ",
                       "more, or set data.held_out_fraction to 0"));
    }
    if (held == std::ssize(domain.documents)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "data.domains: ", domain.name,
          " has no text left for training: other domains hold the same documents out"));
    }
  }
  return held_out;
}

// Training documents of each domain with the largest hashes (any fixed choice would do), up to an
// equal part of the cap, the last one cut short.
absl::StatusOr<std::vector<std::string>> SampleForTokenizer(const DataSpec& spec,
                                                            std::span<const DomainInput> domains,
                                                            const HeldOutHashes& held_out,
                                                            const PrepareProgress& progress) {
  Meter meter(progress, "sampling for the tokenizer", domains);
  std::vector<std::string> sample;
  for (const DomainInput& domain : domains) {
    std::vector<DocumentInfo> documents = domain.documents;
    std::ranges::sort(documents, std::greater(), &DocumentInfo::hash);
    std::unordered_map<uint64_t, int64_t> take;  // bytes of each chosen document
    int64_t left = spec.tokenizer.training_bytes / std::ssize(domains);
    for (const DocumentInfo& document : documents) {
      if (left <= 0) break;
      if (held_out.contains(document.hash) || take.contains(document.hash)) continue;
      take[document.hash] = std::min(left, document.num_bytes);
      left -= document.num_bytes;
    }
    RETURN_IF_ERROR(
        ForEachDocument(spec, domain, meter, [&](std::string_view document, uint64_t hash) {
          const auto found = take.find(hash);
          if (found == take.end()) return absl::OkStatus();
          sample.emplace_back(document.substr(0, static_cast<size_t>(found->second)));
          take.erase(found);
          return absl::OkStatus();
        }));
  }
  return sample;
}

class SplitWriter {
 public:
  static absl::StatusOr<SplitWriter> Create(const std::string& prefix, const Tokenizer& tokenizer) {
    ASSIGN_OR_RETURN(ShardWriter shard, ShardWriter::Create(prefix, tokenizer.vocab_size()));
    return SplitWriter(std::move(shard), tokenizer);
  }
  absl::Status Append(std::string_view document) {
    ids_ = {tokenizer_->separator()};
    tokenizer_->Encode(document, ids_);
    num_bytes_ += static_cast<int64_t>(document.size());
    return shard_.Append(ids_);
  }
  absl::StatusOr<SplitRecord> Finish() {
    ASSIGN_OR_RETURN(const ShardRecord record, shard_.Finish());
    return SplitRecord{num_bytes_, record};
  }

 private:
  SplitWriter(ShardWriter shard, const Tokenizer& tokenizer)
      : shard_(std::move(shard)), tokenizer_(&tokenizer) {}
  ShardWriter shard_;
  const Tokenizer* tokenizer_;
  std::vector<int32_t> ids_;
  int64_t num_bytes_ = 0;
};

absl::StatusOr<DomainRecord> WriteDomain(const DataSpec& spec, const std::string& folder,
                                         const DomainInput& domain, const HeldOutHashes& held_out,
                                         const Tokenizer& tokenizer, Meter& meter) {
  ASSIGN_OR_RETURN(SplitWriter train,
                   SplitWriter::Create(TrainPrefix(folder, domain.name), tokenizer));
  ASSIGN_OR_RETURN(SplitWriter held,
                   SplitWriter::Create(HeldOutPrefix(folder, domain.name), tokenizer));
  ASSIGN_OR_RETURN(OutputFile held_text,
                   OutputFile::Create(HeldOutPrefix(folder, domain.name) + ".txt"));
  RETURN_IF_ERROR(ForEachDocument(
      spec, domain, meter, [&](std::string_view document, uint64_t hash) -> absl::Status {
        if (!held_out.contains(hash)) return train.Append(document);
        RETURN_IF_ERROR(held_text.Write(absl::string_view(document.data(), document.size())));
        return held.Append(document);
      }));
  RETURN_IF_ERROR(held_text.Close());
  DomainRecord record;
  record.name = domain.name;
  ASSIGN_OR_RETURN(record.train, train.Finish());
  ASSIGN_OR_RETURN(record.held_out, held.Finish());
  return record;
}

absl::Status WriteFolder(const DataSpec& spec, const std::string& folder, Manifest manifest,
                         std::span<const DomainInput> domains, const HeldOutHashes& held_out,
                         const Tokenizer& tokenizer, const PrepareProgress& progress) {
  Meter meter(progress, "tokenizing", domains);
  for (const DomainInput& domain : domains) {
    ASSIGN_OR_RETURN(DomainRecord record,
                     WriteDomain(spec, folder, domain, held_out, tokenizer, meter));
    manifest.domains.push_back(std::move(record));
  }
  const std::string content = tokenizer.file_content();
  manifest.tokenizer_file = tokenizer.file_name();
  manifest.tokenizer = {std::ssize(content), Checksum(content)};
  manifest.vocab_size = tokenizer.vocab_size();
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder, "/", manifest.tokenizer_file), content));
  return WriteFileAtomically(absl::StrCat(folder, "/", Manifest::kFileName), manifest.ToJson());
}

absl::Status CreateEmptyFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  std::filesystem::create_directories(folder, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(folder, ": cannot create: ", error.message()));
}

absl::Status RenameFolder(const std::string& from, const std::string& to) {
  std::error_code error;
  std::filesystem::rename(from, to, error);
  if (error) return absl::UnavailableError(absl::StrCat(to, ": cannot rename: ", error.message()));
  const std::string parent = std::filesystem::path(to).parent_path().string();
  return SyncPath(parent.empty() ? "." : parent);
}

std::string WithoutTrailingSlash(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return folder;
}

}  // namespace

absl::StatusOr<PrepareOutcome> Prepare(const DataSpec& spec, const PrepareProgress& progress) {
  const std::string folder = WithoutTrailingSlash(spec.folder);
  ASSIGN_OR_RETURN(std::vector<DomainInput> domains, FindInputs(spec));
  Manifest manifest;
  manifest.spec = Describe(spec, domains);
  ASSIGN_OR_RETURN(const bool prepared, IsPrepared(folder, manifest.spec));
  if (prepared) return PrepareOutcome::kAlreadyThere;

  RETURN_IF_ERROR(Survey(spec, domains, progress));
  ASSIGN_OR_RETURN(const HeldOutHashes held_out, ChooseHeldOut(spec, domains));
  std::vector<std::string> sample;
  if (spec.tokenizer.kind != TokenizerSpec::Kind::kBytes) {
    ASSIGN_OR_RETURN(sample, SampleForTokenizer(spec, domains, held_out, progress));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   TrainTokenizer(spec.tokenizer, sample));

  const std::string temporary = folder + ".tmp";
  RETURN_IF_ERROR(CreateEmptyFolder(temporary));
  RETURN_IF_ERROR(
      WriteFolder(spec, temporary, std::move(manifest), domains, held_out, *tokenizer, progress));
  RETURN_IF_ERROR(RenameFolder(temporary, folder));
  return PrepareOutcome::kWritten;
}

}  // namespace moebius
