#include "train/checkpoint_config.h"

#include <google/protobuf/text_format.h>

namespace moebius {

absl::StatusOr<RunConfig> ReadCheckpointConfig(const CheckpointReader& checkpoint) {
  constexpr char kFile[] = "config.textproto";
  ASSIGN_OR_RETURN(const std::string text, checkpoint.ReadTextFile(kFile));
  RunConfig config;
  if (!google::protobuf::TextFormat::ParseFromString(text, &config)) {
    return absl::DataLossError(absl::StrCat(checkpoint.path(), "/", kFile, ": is not a config"));
  }
  const auto embedding = checkpoint.tensors().find("embedding.weight");
  if (embedding == checkpoint.tensors().end() || embedding->second.shape.rank() != 2) {
    return absl::DataLossError(
        absl::StrCat(checkpoint.path(), ": has no tensor 'embedding.weight' of two dimensions"));
  }
  config.mutable_model()->set_vocab_size(embedding->second.shape[0]);
  return config;
}

}  // namespace moebius
