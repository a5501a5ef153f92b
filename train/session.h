// Everything that one rank trains with, assembled from a config: the step engine and its data. It
// knows steps; files, signals and messages are the Trainer's.
#pragma once

#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "data/dataset.h"
#include "data/mixture_stream.h"
#include "train/evaluate.h"
#include "train/step_engine.h"

namespace moebius {

class Session {
 public:
  // REQUIRES: the config is valid for the world's size. world and dataset outlive the session,
  // and so does the observer, if any.
  static absl::StatusOr<std::unique_ptr<Session>> Create(const RunConfig& config,
                                                         Communicator& world,
                                                         const Dataset& dataset,
                                                         const Context::Options& resources,
                                                         PlanObserver* observer = nullptr);

  // Takes the next step: number steps_done() + 1. All ranks call it together.
  StepResult Step();
  int64_t steps_done() const { return steps_done_; }
  void set_steps_done(int64_t steps) { steps_done_ = steps; }  // after loading a checkpoint
  void set_records_margins(bool records) { engine_->set_records_margins(records); }
  // What watches or replaces the choices of experts from the next step on. Null: nothing does.
  void set_selection_hook(SelectionHook hook) { engine_->set_selection_hook(std::move(hook)); }
  double learning_rate() { return context().learning_rate(); }

  std::vector<DomainEvaluation> Evaluate();

  const RunConfig& config() const { return engine_->config(); }
  Context& context() { return engine_->context(); }
  Mesh& mesh() { return engine_->mesh(); }
  Transformer& model() { return engine_->model(); }
  AdamW& optimizer() { return engine_->optimizer(); }
  const ValueBuckets& values() const { return engine_->values(); }
  WeightSource& weights() { return engine_->weights(); }

 private:
  Session(std::unique_ptr<StepEngine> engine, const Dataset& dataset, MixtureStream stream);
  std::vector<MicroBatch> LoadMicroBatches();

  const std::unique_ptr<StepEngine> engine_;
  const Dataset& dataset_;
  MixtureStream stream_;
  int64_t steps_done_ = 0;
};

}  // namespace moebius
