// Writes a Hugging Face model directory: config.json and model.safetensors.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "configs/model.pb.h"
#include "core/base/status.h"
#include "core/tensor/tensor.h"
#include "train/hugging_face/layout.h"

namespace moebius {

struct HuggingFaceExport {
  HuggingFaceLayout layout = HuggingFaceLayout::kQwen3Moe;
  DType dtype = DType::kF32;            // of the weights: kF32 or kBF16
  int64_t max_position_embeddings = 0;  // the sequence length that the model was trained with
};

// Gives a logical parameter by name, whole, on the CPU, as F32 or F64.
using ParameterSource = std::function<absl::StatusOr<Tensor>(const std::string& name)>;

// Writes `model` into `directory`, which is created if need be. Asks for each parameter once, in
// the order of the layers, and holds no more than one. Numbers are rounded to nearest. The same
// numbers give the same bytes. FailedPrecondition, before anything is written, with a sentence on
// the first thing that the layout cannot express. REQUIRES: every default of `model` is resolved.
absl::Status WriteHuggingFace(const ModelConfig& model, const HuggingFaceExport& options,
                              const ParameterSource& source, const std::string& directory);

}  // namespace moebius
