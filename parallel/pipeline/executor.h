// Runs one stage's part of a plan on tapes: forward and backward of each micro-batch, messages to
// the neighbouring stages, weight gradients when the plan says so.
//
//   const auto plan = MakePlan(spec);                 // once
//   PipelineExecutor executor(parts);
//   executor.Run(*plan);                              // every step, on all stages together
//
// 1F1B on one stage is: forward 0, backward 0, forward 1, backward 1, ... with one tape at a time.
#pragma once

#include <vector>

#include "core/tape/tape.h"
#include "parallel/communicator.h"
#include "parallel/pipeline/plan.h"

namespace moebius {

// A value of a Bundle that travels between virtual stages.
struct ValueSpec {
  const char* name;
  DType dtype;  // F64, F32 or BF16; its gradient has the same
  Shape shape;  // zero tokens are ordinary
};

// What the executor runs: a model cut into chunks.
class PipelineModel {
 public:
  virtual ~PipelineModel() = default;

  // What `virtual_stage` hands to the next for a micro-batch. Asked on both sides: a function of
  // what all stages know.
  virtual std::vector<ValueSpec> Boundary(int virtual_stage, int micro_batch) const = 0;

  // Runs a chunk of this stage on the tape of the micro-batch. `in` has the values of the boundary
  // before the chunk, as leaves, and no state; it is empty on the first virtual stage. The result
  // has those of the boundary behind it, no Var under two names; what else it has, and what the
  // last virtual stage returns, is dropped: there the loss is recorded on the tape.
  virtual Bundle Forward(Tape& tape, int chunk, int micro_batch, Bundle in) = 0;
};

// Told what a stage runs, as it runs it.
class PlanObserver {
 public:
  virtual ~PlanObserver() = default;
  virtual void PlanBegins(const PipelinePlan& plan) = 0;
  virtual void ActionBegins(const Action& action) = 0;
  virtual void ActionEnds(const Action& action) = 0;
  virtual void PlanEnds() = 0;
};

class PipelineExecutor {
 public:
  // All outlive the executor. `stages`: the ranks of the pipeline axis, in order.
  struct Parts {
    PipelineModel& model;
    Communicator& stages;
    Context& context;
    WeightSource& weights;
    GradientSink* gradients = nullptr;  // of the tapes
    PlanObserver* observer = nullptr;
  };
  explicit PipelineExecutor(const Parts& parts) : parts_(parts) {}

  // All stages call it together, with one plan, that Simulate has found legal. Returns when this
  // stage has done its part, and all that it has sent is taken. A message moves while both ranks
  // are inside the communicator, or as far as its transport moves it beside them. On kMeta nothing
  // is sent, and no other rank is needed.
  // kForwardOnly: tapes keep nothing, and are gone after their forward.
  void Run(const PipelinePlan& plan);

 private:
  const Parts parts_;
};

}  // namespace moebius
