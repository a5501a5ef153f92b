#include "train/checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "absl/strings/str_join.h"
#include "core/base/checksum.h"
#include "train/checkpoint/blocks.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "moebius-checkpoint";
constexpr int kVersion = 1;
constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16,
                             DType::kI32, DType::kI64, DType::kU8};

// The last lines of a manifest, which vouch for all before them.
std::string Seal(std::string_view body) {
  return absl::StrCat(",\n\"checksum\": \"", ChecksumText(Checksum(body)), "\"\n}\n");
}

std::vector<int64_t> Numbers(const Shape& shape) { return {shape.begin(), shape.end()}; }

std::string TensorText(const std::string& name, const Manifest::StoredTensor& tensor) {
  std::vector<std::string> pieces;
  for (const Manifest::StoredPiece& piece : tensor.pieces) {
    pieces.push_back(Json{{"shard", piece.shard},
                          {"row", piece.block.local_begin},
                          {"begin", piece.block.begin},
                          {"end", piece.block.end},
                          {"checksum", ChecksumText(piece.checksum)}}
                         .dump());
  }
  std::string head =
      Json{{"name", name}, {"dtype", NameOf(tensor.dtype)}, {"shape", Numbers(tensor.shape)}}
          .dump();
  head.pop_back();
  return absl::StrCat(head, ",\"pieces\":[\n", absl::StrJoin(pieces, ",\n"), "]}");
}

// Throws what nlohmann::json throws, or this, for FromText to name the file.
struct BadManifest : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void Require(bool condition, const std::string& what) {
  if (!condition) throw BadManifest(what);
}

uint64_t ParseChecksum(const Json& json) {
  const auto text = json.get<std::string>();
  const size_t digits = text.find(':') + 1;
  const uint64_t checksum = std::stoull(text.substr(digits), nullptr, 16);
  Require(text == ChecksumText(checksum), "'" + text + "' is not a checksum");
  return checksum;
}

DType ParseDType(const std::string& name) {
  for (const DType dtype : kDTypes) {
    if (name == NameOf(dtype)) return dtype;
  }
  throw BadManifest("no such dtype: " + name);
}

Shape ParseShape(const std::vector<int64_t>& dims) {
  Require(dims.size() <= Shape::kMaxRank, "too many dimensions");
  int64_t bytes = 8;
  for (const int64_t dim : dims) {
    Require(dim >= 0 && !__builtin_mul_overflow(bytes, dim, &bytes), "the shape overflows");
  }
  return Shape(dims);
}

Manifest::StoredPiece ParsePiece(const Json& json, const Shape& shape, size_t num_shards) {
  Manifest::StoredPiece piece;
  piece.shard = json.at("shard").get<int>();
  piece.block = {json.at("row").get<int64_t>(), json.at("begin").get<std::vector<int64_t>>(),
                 json.at("end").get<std::vector<int64_t>>()};
  piece.checksum = ParseChecksum(json.at("checksum"));
  const auto& [row, begin, end] = piece.block;
  const auto rank = static_cast<size_t>(shape.rank());
  Require(piece.shard >= 0 && static_cast<size_t>(piece.shard) < num_shards, "no such shard");
  Require(row >= 0 && begin.size() == rank && end.size() == rank, "a piece has no place");
  for (size_t d = 0; d < rank; ++d) {
    Require(0 <= begin[d] && begin[d] < end[d] && end[d] <= shape[static_cast<int>(d)],
            "a piece lies outside of the tensor");
  }
  return piece;
}

void ParseTensor(const Json& json, Manifest& manifest) {
  const auto name = json.at("name").get<std::string>();
  try {
    Manifest::StoredTensor tensor;
    tensor.dtype = ParseDType(json.at("dtype").get<std::string>());
    tensor.shape = ParseShape(json.at("shape").get<std::vector<int64_t>>());
    for (const Json& piece : json.at("pieces")) {
      tensor.pieces.push_back(ParsePiece(piece, tensor.shape, manifest.shards.size()));
    }
    Require(manifest.tensors.emplace(name, std::move(tensor)).second, "stands there twice");
  } catch (const std::exception& error) {
    throw BadManifest("tensor '" + name + "': " + error.what());
  }
}

bool StaysInFolder(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find_first_of(std::string("/\0", 2)) == name.npos;
}

Manifest Parse(const Json& json) {
  Require(json.at("format") == kFormat, "not a checkpoint of Moebius");
  Require(json.at("version") == kVersion, "version " + json.at("version").dump() + ", not 1");
  Manifest manifest;
  manifest.step = json.at("step").get<int64_t>();
  manifest.state = json.at("state").get<std::map<std::string, int64_t>>();
  for (const Json& file : json.at("files")) {
    const auto name = file.at("name").get<std::string>();
    Require(StaysInFolder(name), "file name '" + name + "'");
    manifest.files[name] = {file.at("bytes").get<int64_t>(), ParseChecksum(file.at("checksum"))};
  }
  for (const Json& shard : json.at("shards")) {
    const auto name = shard.at("file").get<std::string>();
    Require(StaysInFolder(name), "shard name '" + name + "'");
    manifest.shards.push_back({name, shard.at("bytes").get<int64_t>()});
  }
  for (const Json& tensor : json.at("tensors")) ParseTensor(tensor, manifest);
  return manifest;
}

Block BlockOf(const Manifest::StoredPiece& piece) { return {piece.block.begin, piece.block.end}; }

using Corners = std::map<std::vector<int64_t>, int>;

// Adds `sign` at each corner of a block, negated for each dimension in which it is the end.
void AddCorners(const Block& block, int sign, Corners* corners) {
  const size_t rank = block.begin.size();
  for (unsigned which = 0; which < 1u << rank; ++which) {
    std::vector<int64_t> corner = block.begin;
    int here = sign;
    for (size_t d = 0; d < rank; ++d) {
      if ((which >> d & 1) == 0) continue;
      corner[d] = block.end[d];
      here = -here;
    }
    (*corners)[corner] += here;
  }
}

// Whether each element of the tensor lies in one piece. How many pieces lie over an element is a
// sum over the corners before it: so pieces cover a block once if and only if their corners add up
// to those of the block. O(n log n) for n pieces.
bool CoverOnce(const Manifest::StoredTensor& tensor) {
  Corners corners;
  for (const Manifest::StoredPiece& piece : tensor.pieces) AddCorners(BlockOf(piece), 1, &corners);
  const Block whole{std::vector<int64_t>(tensor.shape.rank()), Numbers(tensor.shape)};
  AddCorners(whole, -1, &corners);
  return std::ranges::all_of(corners, [](const auto& corner) { return corner.second == 0; });
}

}  // namespace

std::string Manifest::ToText() const {
  Json files_json = Json::array(), shards_json = Json::array();
  for (const auto& [name, file] : files) {
    files_json.push_back(
        {{"name", name}, {"bytes", file.bytes}, {"checksum", ChecksumText(file.checksum)}});
  }
  for (const Shard& shard : shards) {
    shards_json.push_back({{"file", shard.file}, {"bytes", shard.bytes}});
  }
  std::vector<std::string> tensor_texts;
  for (const auto& [name, tensor] : tensors) tensor_texts.push_back(TensorText(name, tensor));
  const std::string body =
      absl::StrCat("{\n\"format\": \"", kFormat, "\",\n\"version\": ", kVersion,
                   ",\n\"step\": ", step, ",\n\"state\": ", Json(state).dump(),
                   ",\n\"files\": ", files_json.dump(), ",\n\"shards\": ", shards_json.dump(),
                   ",\n\"tensors\": [\n", absl::StrJoin(tensor_texts, ",\n"), "\n]");
  return body + Seal(body);
}

absl::StatusOr<Manifest> Manifest::FromText(const std::string& text, const std::string& path) {
  std::string_view body = text;
  body.remove_suffix(std::min(body.size(), Seal("").size()));
  if (text.substr(body.size()) != Seal(body)) {
    return absl::DataLossError(absl::StrCat(path, ": its checksum does not match: damaged"));
  }
  try {
    return Parse(Json::parse(text));
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": ", error.what()));
  }
}

absl::Status Manifest::Join(const Manifest& other) {
  const int shift = static_cast<int>(shards.size());
  shards.insert(shards.end(), other.shards.begin(), other.shards.end());
  files.insert(other.files.begin(), other.files.end());
  for (const auto& [name, theirs] : other.tensors) {
    const auto [place, is_new] = tensors.try_emplace(name, theirs.dtype, theirs.shape);
    StoredTensor& ours = place->second;
    if (ours.dtype != theirs.dtype || ours.shape != theirs.shape) {
      return absl::DataLossError(
          absl::StrCat("tensor '", name, "': ranks disagree on its shape: ", ours.shape.ToString(),
                       " and ", theirs.shape.ToString()));
    }
    for (StoredPiece piece : theirs.pieces) {
      piece.shard += shift;
      ours.pieces.push_back(std::move(piece));
    }
  }
  return absl::OkStatus();
}

absl::Status Manifest::CheckComplete(const std::string& path) const {
  for (const auto& [name, tensor] : tensors) {
    int64_t held = 0;
    for (const StoredPiece& piece : tensor.pieces) held += BlockOf(piece).num_elements();
    const int64_t all = tensor.shape.num_elements();
    if (held < all) {
      return absl::DataLossError(absl::StrCat(path, ": tensor '", name, "': the pieces hold ", held,
                                              " of ", all, " elements"));
    }
    if (held > all || !CoverOnce(tensor)) {
      return absl::DataLossError(absl::StrCat(path, ": tensor '", name, "': two pieces overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace moebius
