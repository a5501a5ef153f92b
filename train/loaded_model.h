// A model out of a checkpoint, ready to run forward: the folder holds all it takes (its config, its
// tokenizer if it was trained on text, its weights).
#pragma once

#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "parallel/mesh.h"

namespace moebius {

class LoadedModel {
 public:
  // Verifies the checkpoint and reads this rank's share of it. Every rank of `world` calls it, with
  // the parallel sizes that it wants, but a pipeline; `world` outlives the model. On the meta
  // device the model has shapes alone.
  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(const std::string& checkpoint,
                                                           const ParallelSizes& sizes,
                                                           Communicator& world,
                                                           const Context::Options& resources);

  const RunConfig& config() const { return config_; }              // of the run that trained it
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }  // null if the folder has none
  Transformer& model() { return *model_; }
  WeightSource& weights() { return weights_; }
  Context& context() { return context_; }
  Mesh& mesh() { return *mesh_; }

 private:
  LoadedModel(const RunConfig& config, std::unique_ptr<Tokenizer> tokenizer,
              std::unique_ptr<Mesh> mesh, const Context::Options& resources)
      : config_(config),
        tokenizer_(std::move(tokenizer)),
        context_(resources),
        mesh_(std::move(mesh)),
        weights_(context_) {}

  const RunConfig config_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  Context context_;
  const std::unique_ptr<Mesh> mesh_;
  kernels::ResidentWeights weights_;
  std::unique_ptr<Transformer> model_;
};

}  // namespace moebius
