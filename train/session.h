// Everything that one rank trains with, assembled from a config: mesh, model, optimizer, data. It
// knows steps; files, signals and messages are the Trainer's.
#pragma once

#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "data/dataset.h"
#include "data/mixture_stream.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "optim/learning_rate.h"
#include "parallel/gathered_weights.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"
#include "parallel/value_buckets.h"
#include "train/evaluate.h"
#include "train/pipeline_layout.h"
#include "train/step.h"

namespace moebius {

DType ComputeDtypeOf(const RunConfig& config);

class Session {
 public:
  // REQUIRES: the config is valid for the world's size. world and dataset outlive the session.
  static absl::StatusOr<std::unique_ptr<Session>> Create(const RunConfig& config,
                                                         Communicator& world,
                                                         const Dataset& dataset,
                                                         const Context::Options& resources);

  // Takes the next step: number steps_done() + 1. All ranks call it together.
  StepResult Step();
  int64_t steps_done() const { return steps_done_; }
  void set_steps_done(int64_t steps) { steps_done_ = steps; }  // after loading a checkpoint
  void set_records_margins(bool records) { step_->set_records_margins(records); }
  double learning_rate() { return context_.step().learning_rate; }

  std::vector<DomainEvaluation> Evaluate();

  const RunConfig& config() const { return config_; }
  Context& context() { return context_; }
  Mesh& mesh() { return *mesh_; }
  Transformer& model() { return *model_; }
  AdamW& optimizer() { return *optimizer_; }
  const ValueBuckets& values() const { return *values_; }
  WeightSource& weights() { return *weights_; }

 private:
  Session(const RunConfig& config, const Dataset& dataset, const Context::Options& resources,
          std::unique_ptr<Mesh> mesh, const ModelSpec& spec, MixtureStream stream);
  std::vector<MicroBatch> LoadMicroBatches();

  const RunConfig config_;
  const Dataset& dataset_;
  Context context_;
  const std::unique_ptr<Mesh> mesh_;
  const PipelineSpec pipeline_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<ValueBuckets> values_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainStep> step_;
  MixtureStream stream_;
  const LearningRateSpec learning_rate_;
  int64_t steps_done_ = 0;
};

}  // namespace moebius
