#include "data/shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/base/check.h"

namespace moebius {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr uint64_t kVersion = 1;
constexpr uint8_t kInt32 = 4;
constexpr uint8_t kUint16 = 8;
constexpr int64_t kUint16VocabSize = 65500;  // below it Megatron writes 16 bits

// Where the parts of an index lie. Nothing is aligned: always copy.
struct IndexLayout {
  static constexpr int64_t kVersionAt = 9, kDtypeAt = 17, kSequencesAt = 18, kDocumentsAt = 26,
                           kHeaderBytes = 34;
  uint8_t dtype;
  int64_t sequences, documents;

  int64_t lengths_at() const { return kHeaderBytes; }
  int64_t pointers_at() const { return lengths_at() + 4 * sequences; }
  int64_t documents_at() const { return pointers_at() + 8 * sequences; }
  int64_t file_bytes() const { return documents_at() + 8 * documents; }
};

int TokenBytes(uint8_t dtype) { return dtype == kUint16 ? 2 : 4; }

template <class T>
T Load(const MappedFile& file, int64_t offset) {
  T value;
  std::memcpy(&value, file.bytes().data() + offset, sizeof value);
  return value;
}

template <class T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class... Parts>
absl::Status Damaged(const MappedFile& file, int64_t offset, const Parts&... what) {
  return absl::DataLossError(absl::StrCat(file.path(), ": byte ", offset, ": ", what...));
}

absl::StatusOr<IndexLayout> ReadHeader(const MappedFile& idx) {
  const auto size = static_cast<int64_t>(idx.bytes().size());
  if (size < IndexLayout::kHeaderBytes) {
    return Damaged(idx, size, "the file ends inside the header of ", IndexLayout::kHeaderBytes,
                   " bytes");
  }
  if (std::memcmp(idx.bytes().data(), kMagic, sizeof kMagic) != 0) {
    return Damaged(idx, 0, "magic is not MMIDIDX: not an index of token shards");
  }
  const auto version = Load<uint64_t>(idx, IndexLayout::kVersionAt);
  if (version != kVersion) {
    return Damaged(idx, IndexLayout::kVersionAt, "version is ", version, ", must be ", kVersion);
  }
  const auto dtype = Load<uint8_t>(idx, IndexLayout::kDtypeAt);
  if (dtype != kInt32 && dtype != kUint16) {
    return Damaged(idx, IndexLayout::kDtypeAt, "dtype code is ", int{dtype},
                   ", must be 4 (int32) or 8 (uint16)");
  }
  const auto sequences = Load<uint64_t>(idx, IndexLayout::kSequencesAt);
  const auto documents = Load<uint64_t>(idx, IndexLayout::kDocumentsAt);
  const auto limit = static_cast<uint64_t>(size);
  if (sequences > limit) {
    return Damaged(idx, IndexLayout::kSequencesAt, "sequence_count ", sequences,
                   " does not fit the file of ", size, " bytes");
  }
  if (documents < 1 || documents > limit) {
    return Damaged(idx, IndexLayout::kDocumentsAt, "document_count ", documents,
                   " does not fit the file of ", size, " bytes, must be at least 1");
  }
  const IndexLayout layout{dtype, static_cast<int64_t>(sequences), static_cast<int64_t>(documents)};
  if (layout.file_bytes() != size) {
    return Damaged(idx, IndexLayout::kSequencesAt, sequences, " sequences and ", documents,
                   " document indices take ", layout.file_bytes(), " bytes, the file has ", size);
  }
  return layout;
}

absl::StatusOr<FileRecord> WriteIndex(const std::string& path, uint8_t dtype,
                                      std::span<const int32_t> lengths) {
  std::string out(kMagic, sizeof kMagic);
  const auto count = static_cast<int64_t>(lengths.size());
  Put(out, kVersion);
  Put(out, dtype);
  Put(out, count);
  Put(out, count + 1);
  for (const int32_t length : lengths) Put(out, length);
  int64_t pointer = 0;
  for (const int32_t length : lengths) {
    Put(out, pointer);
    pointer += int64_t{length} * TokenBytes(dtype);
  }
  for (int64_t i = 0; i <= count; ++i) Put(out, i);
  RETURN_IF_ERROR(WriteFileAtomically(path, out));
  return FileRecord{static_cast<int64_t>(out.size()), Checksum(out)};
}

template <class Token>
void Widen(const std::byte* from, std::span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    Token token;
    std::memcpy(&token, from + i * sizeof token, sizeof token);
    out[i] = static_cast<int32_t>(token);
  }
}

}  // namespace

absl::Status CheckRecord(const MappedFile& file, const FileRecord& record) {
  const auto size = static_cast<int64_t>(file.bytes().size());
  if (size != record.bytes) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": has ", size, " bytes, the manifest says ", record.bytes));
  }
  const uint64_t checksum = Checksum(file.bytes());
  if (checksum != record.checksum) {
    return absl::DataLossError(absl::StrCat(file.path(), ": checksum is ", ChecksumText(checksum),
                                            ", the manifest says ", ChecksumText(record.checksum),
                                            ": the file is damaged"));
  }
  return absl::OkStatus();
}

ShardWriter::ShardWriter(const std::string& prefix, int64_t vocab_size)
    : prefix_(prefix), vocab_size_(vocab_size), bin_(prefix + ".bin", std::ios::binary) {}

absl::StatusOr<ShardWriter> ShardWriter::Create(const std::string& prefix, int64_t vocab_size) {
  CHECK_GE(vocab_size, 1) << "a vocabulary has tokens";
  ShardWriter writer(prefix, vocab_size);
  if (!writer.bin_) return absl::UnavailableError(absl::StrCat(prefix, ".bin: cannot create"));
  return writer;
}

absl::Status ShardWriter::WriteBin(std::span<const std::byte> bytes) {
  bin_checksum_.Add(bytes);
  if (!bin_.write(reinterpret_cast<const char*>(bytes.data()),
                  static_cast<std::streamsize>(bytes.size()))) {
    return absl::UnavailableError(absl::StrCat(prefix_, ".bin: cannot write"));
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::Append(std::span<const int32_t> document) {
  CHECK_LE(document.size(), size_t{std::numeric_limits<int32_t>::max()}) << "document too long";
  for (const int32_t id : document) CHECK(id >= 0 && id < vocab_size_) << "id " << id;
  lengths_.push_back(static_cast<int32_t>(document.size()));
  num_tokens_ += static_cast<int64_t>(document.size());
  if (vocab_size_ >= kUint16VocabSize) return WriteBin(std::as_bytes(document));
  buffer_.resize(document.size() * 2);
  for (size_t i = 0; i < document.size(); ++i) {
    const auto id = static_cast<uint16_t>(document[i]);
    std::memcpy(buffer_.data() + 2 * i, &id, 2);
  }
  return WriteBin(buffer_);
}

absl::StatusOr<ShardRecord> ShardWriter::Finish() {
  bin_.close();
  if (!bin_) return absl::UnavailableError(absl::StrCat(prefix_, ".bin: cannot write"));
  RETURN_IF_ERROR(SyncPath(prefix_ + ".bin"));
  const uint8_t dtype = vocab_size_ < kUint16VocabSize ? kUint16 : kInt32;
  ShardRecord record;
  record.num_tokens = num_tokens_;
  record.num_documents = static_cast<int64_t>(lengths_.size());
  record.bin = {num_tokens_ * TokenBytes(dtype), bin_checksum_.value()};
  ASSIGN_OR_RETURN(record.idx, WriteIndex(prefix_ + ".idx", dtype, lengths_));
  return record;
}

absl::StatusOr<Shard> Shard::Open(const std::string& prefix, int64_t vocab_size,
                                  const ShardRecord* record) {
  Shard shard;
  ASSIGN_OR_RETURN(const MappedFile idx, MappedFile::Open(prefix + ".idx"));
  ASSIGN_OR_RETURN(shard.bin_, MappedFile::Open(prefix + ".bin"));
  RETURN_IF_ERROR(shard.ReadIndex(idx));
  if (record != nullptr) {
    RETURN_IF_ERROR(CheckRecord(idx, record->idx));
    RETURN_IF_ERROR(CheckRecord(shard.bin_, record->bin));
    if (shard.num_tokens() != record->num_tokens ||
        shard.num_documents() != record->num_documents) {
      return absl::DataLossError(absl::StrCat(
          idx.path(), ": has ", shard.num_tokens(), " tokens in ", shard.num_documents(),
          " documents, the manifest says ", record->num_tokens, " in ", record->num_documents));
    }
  }
  RETURN_IF_ERROR(shard.CheckIds(vocab_size));
  return shard;
}

absl::Status Shard::ReadIndex(const MappedFile& idx) {
  ASSIGN_OR_RETURN(const IndexLayout layout, ReadHeader(idx));
  token_bytes_ = TokenBytes(layout.dtype);

  std::vector<int64_t> begins(static_cast<size_t>(layout.sequences) + 1, 0);
  for (int64_t i = 0; i < layout.sequences; ++i) {
    const auto length = Load<int32_t>(idx, layout.lengths_at() + 4 * i);
    const int64_t pointer_at = layout.pointers_at() + 8 * i;
    const auto pointer = Load<int64_t>(idx, pointer_at);
    const int64_t begin = begins[static_cast<size_t>(i)];
    if (length < 0) {
      return Damaged(idx, layout.lengths_at() + 4 * i, "sequence_lengths[", i, "] is ", length);
    }
    if (pointer != begin * token_bytes_) {
      return Damaged(idx, pointer_at, "sequence_pointers[", i, "] is ", pointer, ", must be ",
                     begin * token_bytes_);
    }
    begins[static_cast<size_t>(i) + 1] = begin + length;
  }
  const auto bin_bytes = static_cast<int64_t>(bin_.bytes().size());
  if (begins.back() * token_bytes_ != bin_bytes) {
    return absl::DataLossError(absl::StrCat(bin_.path(), ": has ", bin_bytes, " bytes, ",
                                            idx.path(), " describes ",
                                            begins.back() * token_bytes_));
  }

  int64_t previous = 0;
  for (int64_t i = 0; i < layout.documents; ++i) {
    const int64_t at = layout.documents_at() + 8 * i;
    const auto index = Load<int64_t>(idx, at);
    const bool last = i + 1 == layout.documents;
    if (index < previous || index > layout.sequences || (i == 0 && index != 0) ||
        (last && index != layout.sequences)) {
      return Damaged(idx, at, "document_indices[", i, "] is ", index,
                     ", must rise from 0 to the number of sequences, ", layout.sequences);
    }
    document_begins_.push_back(begins[static_cast<size_t>(index)]);
    previous = index;
  }
  return absl::OkStatus();
}

absl::Status Shard::CheckIds(int64_t vocab_size) const {
  constexpr int64_t kChunk = 4096;
  std::vector<int32_t> ids(kChunk);
  for (int64_t begin = 0; begin < num_tokens(); begin += kChunk) {
    const std::span<int32_t> chunk(ids.data(), std::min(kChunk, num_tokens() - begin));
    Read(begin, chunk);
    uint32_t largest = 0;
    for (const int32_t id : chunk) largest = std::max(largest, static_cast<uint32_t>(id));
    if (largest < vocab_size) continue;
    const auto bad = std::find_if(chunk.begin(), chunk.end(), [&](int32_t id) {
      return static_cast<uint32_t>(id) >= vocab_size;
    });
    const int64_t token = begin + (bad - chunk.begin());
    return Damaged(bin_, token * token_bytes_, "token ", token, " has id ", *bad,
                   ", the vocabulary has ", vocab_size);
  }
  return absl::OkStatus();
}

void Shard::Read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  CHECK(begin >= 0 && begin <= num_tokens() - count)
      << "tokens " << begin << " to " << begin + count << " of " << num_tokens();
  const std::byte* from = bin_.bytes().data() + begin * token_bytes_;
  if (token_bytes_ == 2) {
    Widen<uint16_t>(from, out);
  } else {
    Widen<int32_t>(from, out);
  }
}

}  // namespace moebius
