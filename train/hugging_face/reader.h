// Reads a Hugging Face model directory: config.json with model.safetensors, or with the shards that
// model.safetensors.index.json names.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "configs/model.pb.h"
#include "core/base/status.h"
#include "core/tensor/tensor.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/config_json.h"
#include "train/hugging_face/tensor_map.h"

namespace moebius {

class HuggingFaceReader {
 public:
  // Maps the files and checks everything but the numbers: every tensor that the config asks for is
  // there once, in F32 or BF16 and of its shape, and no other. Exempt are a copy of the tied
  // embedding that equals it, and the rotary frequencies that old files carry. Errors name the
  // file, and the key or the tensor.
  static absl::StatusOr<HuggingFaceReader> Open(const std::string& directory);

  HuggingFaceLayout layout() const { return config_.layout; }
  const HuggingFaceConfig& config() const { return config_; }
  const ModelConfig& model() const { return config_.model; }

  // Every logical parameter, in the order of the layers.
  const std::vector<MappedParameter>& parameters() const { return parameters_; }

  // Fills `value` (F32 or F64, of the parameter's shape) with the numbers of the files, exactly.
  void Read(const MappedParameter& parameter, const Tensor& value) const;

 private:
  absl::Status OpenFiles();
  absl::Status MatchTensors();
  absl::Status CheckTensor(const HuggingFaceTensor& tensor) const;
  bool IsHarmless(const std::string& name) const;
  const SafetensorsFile::Entry& EntryOf(const std::string& tensor) const;

  std::string directory_;
  HuggingFaceConfig config_;
  std::vector<MappedParameter> parameters_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;  // tensor name -> index into files_
};

}  // namespace moebius
