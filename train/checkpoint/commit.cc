#include "train/checkpoint/commit.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "core/base/checksum.h"
#include "core/base/files.h"
#include "train/checkpoint/blocks.h"
#include "train/checkpoint/manifest.h"
#include "train/checkpoint/safetensors.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

absl::Status Explain(const std::error_code& error, const std::string& what) {
  return error ? absl::ErrnoToStatus(error.value(), what) : absl::OkStatus();
}

absl::Status MakeFolder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return Explain(error, absl::StrCat(folder, ": cannot create"));
}

absl::Status Rename(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return Explain(error, absl::StrCat(from, ": cannot rename to ", to));
}

absl::Status WriteAndFlush(const std::string& path, absl::string_view text) {
  ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  RETURN_IF_ERROR(file.Write(text));
  return file.Close();
}

std::string PiecesPath(const std::string& folder, int rank) {
  return absl::StrFormat("%s/rank-%03d.pieces.json", folder, rank);
}

bool Saves(const CheckpointTensor& tensor) {
  return tensor.first_replica && !tensor.pieces.empty();
}

std::span<const std::byte> BytesOf(const Tensor& tensor) {
  return {tensor.raw(), static_cast<size_t>(tensor.bytes())};
}

Manifest::StoredTensor Describe(const CheckpointTensor& tensor) {
  Manifest::StoredTensor stored{tensor.local.dtype(), tensor.global_shape, {}};
  if (!Saves(tensor)) return stored;
  const int64_t element = SizeOf(stored.dtype);
  const bool flat = IsFlat(tensor.local.shape(), tensor.global_shape);
  for (const Piece& piece : tensor.pieces) {
    const Block block{piece.begin, piece.end};
    const int64_t begin = FirstElement(piece, flat) * element;
    const auto bytes = BytesOf(tensor.local).subspan(begin, block.num_elements() * element);
    stored.pieces.push_back({0, piece, Checksum(bytes)});
  }
  return stored;
}

absl::Status WriteShard(const CheckpointContent& content, const std::string& path,
                        Manifest::Shard& shard) {
  std::vector<SafetensorsWriter::Description> descriptions;
  for (const CheckpointTensor& t : content.tensors) {
    if (Saves(t)) descriptions.push_back({t.name, t.local.dtype(), t.local.shape()});
  }
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(path, std::move(descriptions)));
  for (const CheckpointTensor& t : content.tensors) {
    if (Saves(t)) RETURN_IF_ERROR(writer.Write(t.name, BytesOf(t.local)));
  }
  shard.bytes = writer.file_bytes();
  return writer.Close();
}

absl::StatusOr<Manifest> JoinLists(const std::string& folder, int world_size) {
  Manifest joined;
  for (int rank = 0; rank < world_size; ++rank) {
    const std::string path = PiecesPath(folder, rank);
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    ASSIGN_OR_RETURN(const Manifest share, Manifest::FromText(text, path));
    if (rank == 0) {
      joined.step = share.step;
      joined.state = share.state;
    }
    RETURN_IF_ERROR(joined.Join(share));
  }
  RETURN_IF_ERROR(joined.CheckComplete(folder));
  return joined;
}

absl::Status RemoveOlder(const std::string& directory, int keep_last) {
  ASSIGN_OR_RETURN(const auto checkpoints, FindCheckpoints(directory));
  for (size_t i = static_cast<size_t>(keep_last); i < checkpoints.size(); ++i) {
    // Out of sight in one step, then bit by bit.
    const std::string hidden =
        absl::StrCat(directory, "/.", CheckpointName(checkpoints[i].step), ".tmp.removed");
    RETURN_IF_ERROR(Rename(checkpoints[i].path, hidden));
    RemoveTemporary(hidden);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteShare(const CheckpointContent& content, int rank, const std::string& folder) {
  RETURN_IF_ERROR(MakeFolder(folder));
  Manifest share;
  share.step = content.step;
  share.state = content.state;
  for (const CheckpointTensor& t : content.tensors) {
    CHECK(share.tensors.emplace(t.name, Describe(t)).second) << t.name << " twice";
  }
  if (std::ranges::any_of(content.tensors, Saves)) {
    Manifest::Shard& shard = share.shards.emplace_back();
    shard.file = absl::StrFormat("rank-%03d.safetensors", rank);
    RETURN_IF_ERROR(WriteShard(content, absl::StrCat(folder, "/", shard.file), shard));
  }
  if (rank == 0) {
    for (const auto& [name, text] : content.files) {
      RETURN_IF_ERROR(WriteAndFlush(absl::StrCat(folder, "/", name), text));
      share.files[name] = {static_cast<int64_t>(text.size()), Checksum(text)};
    }
  }
  return WriteAndFlush(PiecesPath(folder, rank), share.ToText());
}

absl::Status CommitCheckpoint(const std::string& temporary, const std::string& directory,
                              int64_t step, int world_size, int keep_last) {
  ASSIGN_OR_RETURN(const Manifest manifest, JoinLists(temporary, world_size));
  RETURN_IF_ERROR(WriteAndFlush(absl::StrCat(temporary, "/manifest.json"), manifest.ToText()));
  for (int rank = 0; rank < world_size; ++rank) {
    std::error_code error;
    fs::remove(PiecesPath(temporary, rank), error);
    RETURN_IF_ERROR(Explain(error, absl::StrCat(PiecesPath(temporary, rank), ": cannot remove")));
  }
  RETURN_IF_ERROR(SyncPath(temporary));
  const std::string name = CheckpointName(step);
  RETURN_IF_ERROR(Rename(temporary, absl::StrCat(directory, "/", name)));
  RETURN_IF_ERROR(SyncPath(directory));
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(directory, "/LATEST"), name + "\n"));
  return RemoveOlder(directory, keep_last);
}

absl::Status PrepareDirectory(const std::string& directory, int64_t resumed_step) {
  RETURN_IF_ERROR(MakeFolder(directory));
  std::vector<std::string> leftovers;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (absl::StartsWith(name, ".step-") && absl::StrContains(name, ".tmp.")) {
      leftovers.push_back(entry->path().string());
    }
  }
  RETURN_IF_ERROR(Explain(error, absl::StrCat(directory, ": cannot list")));
  for (const std::string& folder : leftovers) RemoveTemporary(folder);

  ASSIGN_OR_RETURN(const auto checkpoints, FindCheckpoints(directory));
  for (const CheckpointFolder& checkpoint : checkpoints) {
    if (checkpoint.step <= resumed_step) break;
    std::string aside = checkpoint.path + ".set-aside";
    for (int i = 1; fs::exists(aside, error); ++i) {
      aside = absl::StrCat(checkpoint.path, ".set-aside-", i);
    }
    RETURN_IF_ERROR(Rename(checkpoint.path, aside));
  }
  return SyncPath(directory);
}

void RemoveTemporary(const std::string& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

}  // namespace moebius
