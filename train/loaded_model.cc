#include "train/loaded_model.h"

#include <utility>

#include "data/tokenizer/load.h"
#include "train/agreement.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint_config.h"
#include "train/session.h"
#include "train/training_state.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::Load(const std::string& checkpoint,
                                                               const ParallelSizes& sizes,
                                                               Communicator& world,
                                                               const Context::Options& resources) {
  const auto reader = CheckpointReader::Open(checkpoint);
  RETURN_IF_ERROR(Agree(world, reader.status()));
  RETURN_IF_ERROR(Agree(world, reader->Verify(world.rank(), world.size())));
  ASSIGN_OR_RETURN(const RunConfig config, ReadCheckpointConfig(*reader));

  auto tokenizer = LoadTokenizer(checkpoint);
  if (!tokenizer.ok() && !absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  const int64_t vocab_size =
      tokenizer.ok() ? (*tokenizer)->vocab_size() : config.model().vocab_size();
  ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::FromProto(config.model(), vocab_size));
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::Create(sizes, world, resources.accelerator));

  std::unique_ptr<LoadedModel> loaded(new LoadedModel(
      config, tokenizer.ok() ? *std::move(tokenizer) : nullptr, std::move(mesh), resources));
  loaded->model_ = std::make_unique<Transformer>(spec, DtypePolicy::For(ComputeDtypeOf(config)),
                                                 *loaded->mesh_, loaded->context_);
  if (!resources.device.is_meta()) {
    RETURN_IF_ERROR(RestoreModel(*reader, loaded->model_->store()));
  }
  return loaded;
}

}  // namespace moebius
