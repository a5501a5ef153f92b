#include "train/hugging_face/layout.h"

namespace moebius {

const char* NameOf(HuggingFaceLayout layout) {
  switch (layout) {
    case HuggingFaceLayout::kQwen3Moe:
      return "qwen3_moe";
    case HuggingFaceLayout::kOlmoe:
      return "olmoe";
    case HuggingFaceLayout::kMixtral:
      return "mixtral";
  }
  return "";
}

absl::StatusOr<HuggingFaceLayout> ParseHuggingFaceLayout(const std::string& name) {
  using enum HuggingFaceLayout;
  for (const HuggingFaceLayout layout : {kQwen3Moe, kOlmoe, kMixtral}) {
    if (name == NameOf(layout)) return layout;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", name, "\" is no known Hugging Face layout: qwen3_moe, olmoe and mixtral are"));
}

}  // namespace moebius
