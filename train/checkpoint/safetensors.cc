#include "train/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_join.h"
#include "core/base/check.h"

namespace moebius {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kPrefixBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxListLength = 64;
constexpr char kMetadataName[] = "__metadata__";
constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16,
                             DType::kI32, DType::kI64, DType::kU8};

struct RawEntry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

// Reads the header event by event, because a parsed object would have lost duplicate names.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<RawEntry> entries;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool start_object(size_t) override {
    if (depth_ > 1) return Fail("an object where none belongs");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool key(std::string& key) override {
    if (depth_ == 1) return StartEntry(key);
    field_ = key;
    if (in_metadata_) return !metadata.contains(key) || Fail("duplicate key '" + key + "'");
    RawEntry& entry = entries.back();
    if (key == "dtype") return !entry.dtype || Fail("duplicate key 'dtype'");
    if (key == "shape") return !entry.shape || Fail("duplicate key 'shape'");
    if (key == "data_offsets") return !entry.offsets || Fail("duplicate key 'data_offsets'");
    return Fail("unknown key '" + key + "'");
  }
  bool string(std::string& value) override {
    if (depth_ == 2 && in_metadata_) return metadata.emplace(field_, value), true;
    if (depth_ == 2 && list_ == nullptr && field_ == "dtype") {
      entries.back().dtype = value;
      return true;
    }
    return Fail("a string where none belongs");
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || list_ != nullptr || field_ == "dtype") {
      return Fail("a list where none belongs");
    }
    RawEntry& entry = entries.back();
    list_ = &(field_ == "shape" ? entry.shape : entry.offsets).emplace();
    return true;
  }
  bool end_array() override {
    list_ = nullptr;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (list_ == nullptr) return Fail("a number where none belongs");
    if (list_->size() == kMaxListLength) return Fail("a list that is too long");
    list_->push_back(value);
    return true;
  }
  bool number_integer(int64_t) override { return Fail("a negative number"); }
  bool number_float(double, const std::string&) override { return Fail("not a whole number"); }
  bool boolean(bool) override { return Fail("a boolean where none belongs"); }
  bool null() override { return Fail("a null where none belongs"); }
  bool binary(binary_t&) override { return Fail("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail("not JSON at byte " + std::to_string(kPrefixBytes + position));
  }

 private:
  bool StartEntry(const std::string& name) {
    in_metadata_ = name == kMetadataName;
    if (in_metadata_) {
      return !std::exchange(has_metadata_, true) || Fail("duplicate key '__metadata__'");
    }
    entries.emplace_back().name = name;
    return names_.emplace(name, true).second || Fail("duplicate name");
  }
  bool Fail(const std::string& what) {
    const bool in_entry = depth_ > 0 && !in_metadata_ && !entries.empty();
    error = in_entry ? "tensor '" + entries.back().name + "': " + what : what;
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  bool has_metadata_ = false;
  std::string field_;
  std::vector<uint64_t>* list_ = nullptr;
  std::map<std::string, bool> names_;
};

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

// A tensor of the header with its range in the buffer.
struct Located {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::StatusOr<Located> Locate(const RawEntry& raw, const std::string& path) {
  const std::string where = absl::StrCat("tensor '", raw.name, "': ");
  if (!raw.dtype || !raw.shape || !raw.offsets || raw.offsets->size() != 2) {
    return Damaged(path, where + "needs dtype, shape and data_offsets of two numbers");
  }
  const auto dtype =
      std::ranges::find_if(kDTypes, [&](DType d) { return *raw.dtype == NameOf(d); });
  if (dtype == std::end(kDTypes)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", where, "dtype ", *raw.dtype,
                                                   " is not one of F64, F32, BF16, I32, I64, U8"));
  }
  if (raw.shape->size() > Shape::kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", where, raw.shape->size(),
                                                   " dimensions, at most ", Shape::kMaxRank));
  }
  int64_t bytes = SizeOf(*dtype);
  std::vector<int64_t> dims;
  for (const uint64_t dim : *raw.shape) {
    if (dim > INT64_MAX || __builtin_mul_overflow(bytes, static_cast<int64_t>(dim), &bytes)) {
      return Damaged(path, where + "the shape overflows");
    }
    dims.push_back(static_cast<int64_t>(dim));
  }
  const uint64_t begin = (*raw.offsets)[0], end = (*raw.offsets)[1];
  if (begin > end || end - begin != static_cast<uint64_t>(bytes)) {
    return Damaged(path, absl::StrCat(where, "data_offsets [", begin, ", ", end, ") are not the ",
                                      bytes, " bytes of its dtype and shape"));
  }
  return Located{raw.name, *dtype, Shape(dims), begin, end};
}

absl::Status CheckContiguous(std::vector<Located>& tensors, uint64_t buffer_bytes,
                             const std::string& path) {
  std::ranges::sort(tensors, {}, [](const Located& t) { return std::tie(t.begin, t.end); });
  uint64_t expected = 0;
  for (const Located& tensor : tensors) {
    if (tensor.begin != expected) {
      return Damaged(path, absl::StrCat("tensor '", tensor.name, "': begins at ", tensor.begin,
                                        ", but the tensors before it end at ", expected));
    }
    expected = tensor.end;
  }
  if (expected != buffer_bytes) {
    return Damaged(path, absl::StrCat("the tensors end at ", expected, " of the buffer, which has ",
                                      buffer_bytes, " bytes",
                                      expected > buffer_bytes ? ": the file is cut short" : ""));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile result;
  ASSIGN_OR_RETURN(result.file_, MappedFile::Open(path));
  const std::span<const std::byte> bytes = result.file_.bytes();
  if (bytes.size() < kPrefixBytes) return Damaged(path, "too short to have a header");
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - kPrefixBytes) {
    return Damaged(path, absl::StrCat("the header claims ", header_bytes, " bytes, the file has ",
                                      bytes.size(), ", the limit is ", kMaxHeaderBytes));
  }
  const char* header = reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes;
  if (header_bytes == 0 || *header != '{') return Damaged(path, "the header must begin with '{'");

  HeaderParser parser;
  if (!nlohmann::json::sax_parse(header, header + header_bytes, &parser)) {
    return Damaged(path, parser.error);
  }
  std::vector<Located> tensors;
  for (const RawEntry& raw : parser.entries) {
    ASSIGN_OR_RETURN(Located located, Locate(raw, path));
    tensors.push_back(std::move(located));
  }
  const auto buffer = bytes.subspan(kPrefixBytes + header_bytes);
  RETURN_IF_ERROR(CheckContiguous(tensors, buffer.size(), path));
  for (const Located& t : tensors) {
    result.entries_[t.name] = {t.dtype, t.shape, buffer.subspan(t.begin, t.end - t.begin)};
  }
  result.metadata_ = std::move(parser.metadata);
  return result;
}

absl::StatusOr<SafetensorsFile::Entry> SafetensorsFile::Find(const std::string& name) const {
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return absl::NotFoundError(absl::StrCat(path(), ": has no tensor '", name, "'"));
  }
  return entry->second;
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<Description> tensors,
    const std::map<std::string, std::string>& metadata) {
  std::ranges::sort(tensors, {},
                    [](const Description& t) { return std::tuple(-SizeOf(t.dtype), t.name); });
  std::vector<std::string> members;
  const auto add_member = [&](const std::string& name, const nlohmann::ordered_json& value) {
    members.push_back(absl::StrCat(nlohmann::json(name).dump(), ":", value.dump()));
  };
  if (!metadata.empty()) add_member(kMetadataName, metadata);
  SafetensorsWriter writer;
  int64_t end = 0;
  for (const Description& t : tensors) {
    const int64_t begin = end;
    end += t.shape.num_elements() * SizeOf(t.dtype);
    CHECK(t.name != kMetadataName) << "a reserved name";
    CHECK(writer.slots_.emplace(t.name, Slot{begin, end - begin}).second) << t.name << " twice";
    add_member(t.name, {{"dtype", NameOf(t.dtype)},
                        {"shape", std::vector<int64_t>(t.shape.begin(), t.shape.end())},
                        {"data_offsets", {begin, end}}});
  }
  std::string text = absl::StrCat("{", absl::StrJoin(members, ","), "}");
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  const int64_t buffer = kPrefixBytes + static_cast<int64_t>(header_bytes);
  for (auto& [name, slot] : writer.slots_) slot.offset += buffer;
  writer.file_bytes_ = buffer + end;

  ASSIGN_OR_RETURN(writer.file_, OutputFile::Create(path));
  RETURN_IF_ERROR(writer.file_.Write(std::as_bytes(std::span(&header_bytes, 1))));
  RETURN_IF_ERROR(writer.file_.Write(text));
  return writer;
}

absl::Status SafetensorsWriter::Write(const std::string& name, std::span<const std::byte> bytes) {
  const auto slot = slots_.find(name);
  CHECK(slot != slots_.end()) << name << " was not described";
  CHECK_EQ(slot->second.bytes, static_cast<int64_t>(bytes.size())) << name;
  slot->second.written = true;
  return file_.WriteAt(slot->second.offset, bytes);
}

absl::Status SafetensorsWriter::Close() {
  for (const auto& [name, slot] : slots_) CHECK(slot.written) << name << " was not written";
  return file_.Close();
}

}  // namespace moebius
