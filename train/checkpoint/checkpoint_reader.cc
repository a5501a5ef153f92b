#include "train/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <limits>

#include "core/base/checksum.h"
#include "train/checkpoint/blocks.h"

namespace moebius {
namespace {

constexpr int64_t kChecksumChunkBytes = 16 << 20;

absl::Status Damaged(const std::string& file, const std::string& tensor, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(file, ": tensor '", tensor, "': ", what));
}

Block BlockOf(const Piece& piece) { return {piece.begin, piece.end}; }

// The part of a shard's header that the manifest accounts for.
struct Accounted {
  DType dtype = DType::kF32;
  std::vector<int64_t> row_shape;
  int64_t rows = 0;  // elements, where the shard's tensor is flat
};

}  // namespace

absl::StatusOr<CheckpointReader> CheckpointReader::Open(const std::string& path) {
  CheckpointReader reader;
  reader.path_ = path;
  const std::string manifest_path = absl::StrCat(path, "/manifest.json");
  ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest_path));
  ASSIGN_OR_RETURN(reader.manifest_, Manifest::FromText(text, manifest_path));
  RETURN_IF_ERROR(reader.manifest_.CheckComplete(manifest_path));
  for (const Manifest::Shard& shard : reader.manifest_.shards) {
    const std::string shard_path = absl::StrCat(path, "/", shard.file);
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(shard_path));
    if (file.file_bytes() != shard.bytes) {
      return absl::DataLossError(absl::StrCat(shard_path, ": has ", file.file_bytes(),
                                              " bytes, the manifest says ", shard.bytes));
    }
    reader.shards_.push_back(std::move(file));
  }
  RETURN_IF_ERROR(reader.CheckShards());
  for (const auto& [name, file] : reader.manifest_.files) {
    RETURN_IF_ERROR(reader.ReadTextFile(name).status());
  }
  return reader;
}

absl::StatusOr<bool> CheckpointReader::IsFlatIn(int shard, const std::string& name) const {
  ASSIGN_OR_RETURN(const SafetensorsFile::Entry entry, shards_[shard].Find(name));
  return IsFlat(entry.shape, manifest_.tensors.at(name).shape);
}

// Every tensor of every shard is what the pieces say, to the last row: no byte is left unchecked.
absl::Status CheckpointReader::CheckShards() const {
  std::vector<std::map<std::string, Accounted>> accounted(shards_.size());
  for (const auto& [name, tensor] : manifest_.tensors) {
    for (const Manifest::StoredPiece& piece : tensor.pieces) {
      const Block block = BlockOf(piece.block);
      Accounted& known = accounted[piece.shard][name];
      ASSIGN_OR_RETURN(const bool flat, IsFlatIn(piece.shard, name));
      std::vector<int64_t> row_shape;
      for (size_t d = 1; d < block.begin.size() && !flat; ++d) {
        row_shape.push_back(block.end[d] - block.begin[d]);
      }
      if (piece.block.local_begin != known.rows ||
          (known.rows > 0 && known.row_shape != row_shape)) {
        return Damaged(path_ + "/manifest.json", name, "its rows do not follow each other");
      }
      const int64_t rows = flat                  ? block.num_elements()
                           : block.begin.empty() ? 1
                                                 : block.end[0] - block.begin[0];
      known = {tensor.dtype, row_shape, known.rows + rows};
    }
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    for (const auto& [name, known] : accounted[i]) {
      ASSIGN_OR_RETURN(const SafetensorsFile::Entry entry, shards_[i].Find(name));
      std::vector<int64_t> shape = known.row_shape;
      const bool scalar = manifest_.tensors.at(name).shape.rank() == 0;
      if (!scalar || entry.shape.rank() > 0) shape.insert(shape.begin(), known.rows);
      if (entry.dtype != known.dtype || entry.shape != Shape(shape)) {
        return Damaged(shards_[i].path(), name, "dtype or shape is not what the manifest says");
      }
    }
    for (const auto& [name, entry] : shards_[i].entries()) {
      if (!accounted[i].contains(name)) {
        return Damaged(shards_[i].path(), name, "the manifest does not know it");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Verify(int share, int num_shares) const {
  int64_t index = 0;
  for (const auto& [name, tensor] : manifest_.tensors) {
    for (const Manifest::StoredPiece& piece : tensor.pieces) {
      if (index++ % num_shares != share) continue;
      if (Checksum(BytesOf(name, piece)) != piece.checksum) {
        return Damaged(shards_[piece.shard].path(), name,
                       absl::StrCat("its checksum does not match (rows from ",
                                    piece.block.local_begin, " on)"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckpointReader::ReadTextFile(const std::string& name) const {
  const std::string file_path = absl::StrCat(path_, "/", name);
  const auto known = manifest_.files.find(name);
  if (known == manifest_.files.end()) {
    return absl::NotFoundError(absl::StrCat(file_path, ": not part of the checkpoint"));
  }
  ASSIGN_OR_RETURN(std::string text, ReadFile(file_path));
  if (static_cast<int64_t>(text.size()) != known->second.bytes ||
      Checksum(text) != known->second.checksum) {
    return absl::DataLossError(absl::StrCat(file_path, ": its checksum does not match"));
  }
  return text;
}

absl::StatusOr<const Manifest::StoredTensor*> CheckpointReader::Find(
    const std::string& name) const {
  const auto found = manifest_.tensors.find(name);
  if (found == manifest_.tensors.end()) {
    return absl::NotFoundError(absl::StrCat(path_, ": has no tensor '", name, "'"));
  }
  return &found->second;
}

std::span<const std::byte> CheckpointReader::BytesOf(const std::string& name,
                                                     const Manifest::StoredPiece& piece) const {
  const SafetensorsFile::Entry& entry = shards_[piece.shard].entries().at(name);
  const Block block = BlockOf(piece.block);
  const int64_t element = SizeOf(entry.dtype);
  const bool flat = IsFlat(entry.shape, manifest_.tensors.at(name).shape);
  return entry.bytes.subspan(FirstElement(piece.block, flat) * element,
                             block.num_elements() * element);
}

void CheckpointReader::ReadBlock(const std::string& name, const Manifest::StoredTensor& stored,
                                 const std::vector<int64_t>& begin, const std::vector<int64_t>& end,
                                 std::span<std::byte> into) const {
  const Block target{begin, end};
  for (const Manifest::StoredPiece& piece : stored.pieces) {
    const Block source = BlockOf(piece.block);
    if (const auto region = Intersect(source, target)) {
      CopyRegion(*region, source, BytesOf(name, piece), target, into, SizeOf(stored.dtype));
    }
  }
}

absl::Status CheckpointReader::Read(const CheckpointTensor& target) const {
  ASSIGN_OR_RETURN(const Manifest::StoredTensor* stored, Find(target.name));
  const auto differs = [&](const char* what, const std::string& here, const std::string& wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor '", target.name, "': ", what,
                                                   " ", here, ", but the model has ", wanted));
  };
  if (stored->shape != target.global_shape) {
    return differs("shape", stored->shape.ToString(), target.global_shape.ToString());
  }
  if (target.pieces.empty()) return absl::OkStatus();
  if (stored->dtype != target.local.dtype()) {
    return differs("dtype", NameOf(stored->dtype), NameOf(target.local.dtype()));
  }
  const int64_t element = SizeOf(stored->dtype);
  const bool flat = IsFlat(target.local.shape(), target.global_shape);
  const std::span<std::byte> local(target.local.raw(), static_cast<size_t>(target.local.bytes()));
  for (const Piece& piece : target.pieces) {
    const Block block = BlockOf(piece);
    const int64_t offset = FirstElement(piece, flat) * element;
    const int64_t bytes = block.num_elements() * element;
    CHECK_LE(offset + bytes, target.local.bytes()) << target.name;
    ReadBlock(target.name, *stored, piece.begin, piece.end, local.subspan(offset, bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CheckpointReader::WholeChecksum(const std::string& name) const {
  ASSIGN_OR_RETURN(const Manifest::StoredTensor* stored, Find(name));
  const Shape& shape = stored->shape;
  StreamingChecksum checksum;
  // Chunk by chunk of rows, so that no tensor must fit into memory twice.
  Block chunk{std::vector<int64_t>(shape.rank()), {shape.begin(), shape.end()}};
  const int64_t rows = shape.rank() == 0 ? 1 : shape[0];
  const int64_t row_bytes = chunk.elements_per_row() * SizeOf(stored->dtype);
  const int64_t step = std::max<int64_t>(1, kChecksumChunkBytes / std::max<int64_t>(1, row_bytes));
  std::vector<std::byte> bytes;
  for (int64_t row = 0; row < rows && row_bytes > 0; row += step) {
    if (shape.rank() > 0) {
      chunk.begin[0] = row;
      chunk.end[0] = std::min(rows, row + step);
    }
    bytes.resize(static_cast<size_t>(chunk.num_elements() * SizeOf(stored->dtype)));
    ReadBlock(name, *stored, chunk.begin, chunk.end, bytes);
    checksum.Add(bytes);
  }
  return checksum.value();
}

absl::StatusOr<std::optional<NewestCheckpoint>> OpenNewest(const std::string& directory,
                                                           const RankAgreement& ranks) {
  auto listed = FindCheckpoints(directory);
  RETURN_IF_ERROR(AgreeOn(listed.status(), ranks));
  std::vector<std::string> warnings;
  for (int64_t bound = std::numeric_limits<int64_t>::max();;) {
    const auto own = std::ranges::find_if(
        *listed, [&](const CheckpointFolder& folder) { return folder.step < bound; });
    const int64_t step = ranks.max(own == listed->end() ? -1 : own->step);
    if (step < 0) break;
    bound = step;
    const std::string path = absl::StrCat(directory, "/", CheckpointName(step));
    auto reader = CheckpointReader::Open(path);
    absl::Status status = reader.status();
    if (status.ok()) status = reader->Verify(ranks.rank, ranks.world_size);
    status = AgreeOn(status, ranks);
    if (status.ok()) return NewestCheckpoint{*std::move(reader), std::move(warnings)};
    warnings.push_back(absl::StrCat("checkpoint ", path, " is not usable: ", status.message()));
  }
  if (warnings.empty()) return std::nullopt;
  std::string all = absl::StrCat(directory, ": no checkpoint is usable");
  for (const std::string& warning : warnings) absl::StrAppend(&all, "\n  ", warning);
  return absl::DataLossError(all);
}

absl::StatusOr<std::string> InspectCheckpoint(const std::string& path) {
  ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(path));
  RETURN_IF_ERROR(reader.Verify());
  std::string lines;
  for (const auto& [name, tensor] : reader.tensors()) {
    ASSIGN_OR_RETURN(const uint64_t checksum, reader.WholeChecksum(name));
    absl::StrAppendFormat(&lines, "%s %s %s %s\n", name, NameOf(tensor.dtype),
                          tensor.shape.ToString(), ChecksumText(checksum));
  }
  return lines;
}

}  // namespace moebius
