#include "train/hugging_face/convert.h"

#include <filesystem>
#include <utility>

#include "configs/load.h"
#include "configs/run.pb.h"
#include "core/tensor/context.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/commit.h"
#include "train/checkpoint_config.h"
#include "train/hugging_face/reader.h"
#include "train/hugging_face/writer.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

constexpr char kConfigFile[] = "config.textproto";

}  // namespace

absl::Status ExportCheckpoint(const std::string& from, const std::string& to,
                              HuggingFaceLayout layout, DType dtype) {
  ASSIGN_OR_RETURN(const CheckpointReader checkpoint, CheckpointReader::Open(from));
  ASSIGN_OR_RETURN(const RunConfig config, ReadCheckpointConfig(checkpoint));
  RETURN_IF_ERROR(checkpoint.Verify());
  Context context;
  const auto read = [&](const std::string& name) -> absl::StatusOr<Tensor> {
    const auto stored = checkpoint.tensors().find(name);
    if (stored == checkpoint.tensors().end()) {
      return absl::NotFoundError(absl::StrCat(from, ": no tensor ", name));
    }
    Tensor value = context.Empty(stored->second.dtype, stored->second.shape, "convert");
    RETURN_IF_ERROR(checkpoint.Read(ReplicatedTensor(name, value, /*rank=*/0)));
    return value;
  };
  return WriteHuggingFace(config.model(),
                          {.layout = layout,
                           .dtype = dtype,
                           .max_position_embeddings = config.train().sequence_length()},
                          read, to);
}

absl::Status ImportCheckpoint(const std::string& from, const std::string& to) {
  ASSIGN_OR_RETURN(const HuggingFaceReader reader, HuggingFaceReader::Open(from));
  fs::path target = fs::absolute(to);
  if (!target.has_filename()) target = target.parent_path();  // "to/"
  std::error_code error;
  if (fs::exists(target, error)) {
    return absl::InvalidArgumentError(absl::StrCat(to, ": exists already"));
  }
  RunConfig config;
  *config.mutable_model() = reader.model();
  config.mutable_train()->set_sequence_length(reader.config().max_position_embeddings);

  Context context;
  CheckpointContent content;
  content.files[kConfigFile] = PrintConfig(config);
  for (const MappedParameter& parameter : reader.parameters()) {
    const Tensor value = context.Empty(DType::kF32, parameter.shape, "convert");
    reader.Read(parameter, value);
    content.tensors.push_back(ReplicatedTensor(parameter.name, value, /*rank=*/0));
  }

  // Checkpoints come to be as folders of a run; this one is moved to where it is wanted.
  const std::string folder = target.string() + ".tmp", temporary = folder + "/.writing";
  RETURN_IF_ERROR(WriteShare(content, /*rank=*/0, temporary));
  RETURN_IF_ERROR(
      CommitCheckpoint(temporary, folder, /*step=*/0, /*world_size=*/1, /*keep_last=*/1));
  fs::rename(folder + "/" + CheckpointName(0), target, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(to, ": cannot be created"));
  }
  fs::remove_all(folder, error);
  return SyncPath(target.parent_path().string());
}

}  // namespace moebius
