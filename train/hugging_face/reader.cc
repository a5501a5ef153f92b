#include "train/hugging_face/reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/check.h"
#include "core/base/files.h"
#include "train/hugging_face/config_json.h"

namespace moebius {
namespace {

using nlohmann::json;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// The files that an index names, each once. They must stand beside it.
absl::StatusOr<std::set<std::string>> FilesOfIndex(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const json index = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map: missing"));
  }
  std::set<std::string> files;
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string() || file.get_ref<const std::string&>().find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map.", name, ": is ",
                                                     file.dump(), ", must name a file beside it"));
    }
    files.insert(file.get<std::string>());
  }
  return files;
}

// Exact, because T holds every float.
template <class T>
void Widen(const SafetensorsFile::Entry& entry, T* to) {
  const int64_t count = entry.shape.num_elements();
  const std::byte* from = entry.bytes.data();
  const bool is_bf16 = entry.dtype == DType::kBF16;
  for (int64_t i = 0; i < count; ++i) {
    float value;
    if (is_bf16) {
      BF16 half;
      std::memcpy(&half.bits, from + i * 2, 2);
      value = static_cast<float>(half);
    } else {
      std::memcpy(&value, from + i * 4, 4);
    }
    to[i] = value;
  }
}

}  // namespace

absl::StatusOr<HuggingFaceReader> HuggingFaceReader::Open(const std::string& directory) {
  const std::string config_path = directory + "/config.json";
  ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  ASSIGN_OR_RETURN(HuggingFaceConfig config, ParseHuggingFaceConfig(config_path, text));
  HuggingFaceReader reader;
  reader.directory_ = directory;
  reader.config_ = std::move(config);
  RETURN_IF_ERROR(reader.OpenFiles());
  RETURN_IF_ERROR(reader.MatchTensors());
  return reader;
}

absl::Status HuggingFaceReader::OpenFiles() {
  const std::string index = directory_ + "/model.safetensors.index.json";
  std::set<std::string> names = {"model.safetensors"};
  if (Exists(index)) {
    ASSIGN_OR_RETURN(names, FilesOfIndex(index));
  }
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(directory_ + "/" + name));
    for (const auto& [tensor, entry] : file.entries()) {
      const auto [it, is_new] = file_of_.emplace(tensor, files_.size());
      if (!is_new) {
        return absl::InvalidArgumentError(absl::StrCat(
            file.path(), ": tensor ", tensor, " stands in ", files_[it->second].path(), " too"));
      }
    }
    files_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::Status HuggingFaceReader::MatchTensors() {
  parameters_ = MapParameters(model(), layout());
  std::set<std::string> known;
  for (const MappedParameter& parameter : parameters_) {
    for (const HuggingFaceTensor& tensor : parameter.tensors) {
      RETURN_IF_ERROR(CheckTensor(tensor));
      known.insert(tensor.name);
    }
  }
  for (const auto& [name, file] : file_of_) {
    if (!known.contains(name) && !IsHarmless(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(files_[file].path(), ": tensor ", name,
                       " belongs to no part of the model that config.json describes"));
    }
  }
  return absl::OkStatus();
}

absl::Status HuggingFaceReader::CheckTensor(const HuggingFaceTensor& tensor) const {
  const auto file = file_of_.find(tensor.name);
  if (file == file_of_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory_, ": tensor ", tensor.name, " is missing"));
  }
  const SafetensorsFile::Entry& entry = EntryOf(tensor.name);
  const std::string where = absl::StrCat(files_[file->second].path(), ": tensor ", tensor.name);
  if (entry.shape != tensor.shape) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is ", entry.shape.ToString(),
                                                   ", by config.json it must be ",
                                                   tensor.shape.ToString()));
  }
  if (entry.dtype != DType::kF32 && entry.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " is ", NameOf(entry.dtype), ", must be F32 or BF16"));
  }
  return absl::OkStatus();
}

bool HuggingFaceReader::IsHarmless(const std::string& name) const {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (name != "lm_head.weight" || !model().tie_embeddings()) return false;
  const SafetensorsFile::Entry& head = EntryOf(name);
  const SafetensorsFile::Entry& embedding = EntryOf("model.embed_tokens.weight");
  return head.dtype == embedding.dtype && std::ranges::equal(head.bytes, embedding.bytes);
}

const SafetensorsFile::Entry& HuggingFaceReader::EntryOf(const std::string& tensor) const {
  return files_[file_of_.at(tensor)].entries().at(tensor);
}

void HuggingFaceReader::Read(const MappedParameter& parameter, const Tensor& value) const {
  CHECK(value.shape() == parameter.shape) << parameter.name << ": " << value.shape();
  int64_t at = 0;
  for (const HuggingFaceTensor& tensor : parameter.tensors) {
    const SafetensorsFile::Entry& entry = EntryOf(tensor.name);
    if (value.dtype() == DType::kF64) {
      Widen(entry, value.data<double>() + at);
    } else {
      Widen(entry, value.data<float>() + at);
    }
    at += entry.shape.num_elements();
  }
}

}  // namespace moebius
