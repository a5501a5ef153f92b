// What one rank takes steps with, assembled from a config: mesh, model, gradients, optimizer. It
// knows no data: a Session feeds it, and on kMeta the planner runs it dry.
#pragma once

#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "optim/learning_rate.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"
#include "parallel/value_buckets.h"
#include "train/batch_loader.h"
#include "train/pipeline_layout.h"
#include "train/step.h"

namespace moebius {

DType ComputeDtypeOf(const RunConfig& config);

class StepEngine {
 public:
  // `tokenizer_vocab_size` stands in where the config names none. InvalidArgument names the field
  // that does not fit. REQUIRES: the config is valid for the world's size. The world outlives this,
  // and so does the observer, if any.
  static absl::StatusOr<std::unique_ptr<StepEngine>> Create(const RunConfig& config,
                                                            int64_t tokenizer_vocab_size,
                                                            Communicator& world,
                                                            const Context::Options& resources,
                                                            PlanObserver* observer = nullptr);

  // All ranks call it together, for steps 1, 2, ...
  StepResult Step(int64_t step, const std::vector<MicroBatch>& micro_batches);

  // How this rank cuts the micro-batches of a step, and how many it has.
  MicroBatchOptions micro_batch_options() const;
  const PipelineSpec& pipeline() const { return pipeline_; }

  const RunConfig& config() const { return config_; }
  Context& context() { return context_; }
  Mesh& mesh() { return *mesh_; }
  Transformer& model() { return *model_; }
  AdamW& optimizer() { return *optimizer_; }
  const ValueBuckets& values() const { return *values_; }
  WeightSource& weights() { return *weights_; }
  void set_records_margins(bool records) { step_->set_records_margins(records); }
  void set_selection_hook(SelectionHook hook) { step_->set_selection_hook(std::move(hook)); }

 private:
  StepEngine(const RunConfig& config, const Context::Options& resources, std::unique_ptr<Mesh> mesh,
             const ModelSpec& spec, PlanObserver* observer);
  void InitializeShares();

  const RunConfig config_;
  Context context_;
  const std::unique_ptr<Mesh> mesh_;
  const PipelineSpec pipeline_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<ValueBuckets> values_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainStep> step_;
  const LearningRateSpec learning_rate_;
};

}  // namespace moebius
