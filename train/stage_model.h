// A transformer's chunks as the pipeline runs them.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"
#include "parallel/pipeline/executor.h"

namespace moebius {

class StageModel final : public PipelineModel {
 public:
  // What is done behind the last chunk of a micro-batch, with the state of its tokens, [T, D].
  using AtEnd = std::function<void(Tape& tape, const Var& hidden, int micro_batch)>;

  // Model and micro-batches outlive this; every stage has the same micro-batches.
  StageModel(Transformer& model, std::span<const MicroBatch> micro_batches, const StepInputs& step,
             AtEnd at_end)
      : model_(model), micro_batches_(micro_batches), step_(step), at_end_(std::move(at_end)) {}

  std::vector<ValueSpec> Boundary(int virtual_stage, int micro_batch) const override;
  Bundle Forward(Tape& tape, int chunk, int micro_batch, Bundle in) override;

 private:
  Transformer& model_;
  const std::span<const MicroBatch> micro_batches_;
  const StepInputs step_;
  const AtEnd at_end_;
};

}  // namespace moebius
