// The model's description in Hugging Face's config.json, both ways. Keys and their defaults are
// those of transformers' Qwen3MoeConfig, OlmoeConfig and MixtralConfig.
#pragma once

#include <cstdint>
#include <string>

#include "configs/model.pb.h"
#include "core/base/status.h"
#include "core/tensor/dtype.h"
#include "train/hugging_face/layout.h"

namespace moebius {

struct HuggingFaceConfig {
  HuggingFaceLayout layout = HuggingFaceLayout::kQwen3Moe;
  ModelConfig model;
  int64_t max_position_embeddings = 0;  // the longest sequence it was made for
};

// Reads the text of a config.json; `file` stands for it in errors. Keys that do not change what the
// model computes are ignored. InvalidArgument, naming file, key and value, if a key is missing, of
// the wrong type or out of range, or asks for what Moebius does not compute (biases, clipping,
// sliding windows, scaled rotary embedding, dropout, jitter, quantised weights). Every field of the
// model that changes numbers is set, none is left to be derived.
absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(const std::string& file,
                                                         const std::string& text);

// OK if `layout` can say everything that `model` computes; otherwise FailedPrecondition with a
// sentence that names the first field that it cannot.
absl::Status CheckExpressible(const ModelConfig& model, HuggingFaceLayout layout);

// The text of the config.json for `model` with weights of `dtype` (kF32 or kBF16).
// max_position_embeddings is the sequence length it was trained with.
// REQUIRES: CheckExpressible(model, layout) is OK, and every default of `model` is resolved.
std::string PrintHuggingFaceConfig(const ModelConfig& model, HuggingFaceLayout layout, DType dtype,
                                   int64_t max_position_embeddings);

}  // namespace moebius
