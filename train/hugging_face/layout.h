// The model families whose files `transformers` knows and Moebius reads and writes. A layout is
// named as in the model_type of config.json.
#pragma once

#include <string>

#include "core/base/status.h"

namespace moebius {

enum class HuggingFaceLayout {
  kQwen3Moe,  // "qwen3_moe": QK norm per head, any layer dense
  kOlmoe,     // "olmoe": QK norm over the whole projection, head_dim = hidden_size / num_heads
  kMixtral,   // "mixtral": no QK norm, weights of the chosen experts always renormalised
};

const char* NameOf(HuggingFaceLayout layout);

// InvalidArgument, with the names that exist, if there is no such layout.
absl::StatusOr<HuggingFaceLayout> ParseHuggingFaceLayout(const std::string& name);

}  // namespace moebius
