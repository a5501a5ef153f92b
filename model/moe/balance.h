// What keeps experts evenly loaded: auxiliary losses with a scope (micro-batch, sequence, global
// batch; arXiv 2501.11873), router z-loss (arXiv 2202.08906), and a bias on the choice that follows
// the load without a loss (arXiv 2408.15664).
//
// A loss is weight * E * sum_i f_i P_i: f_i the share of the scope's pairs that chose expert i (a
// constant for the gradient), P_i the mean score over its tokens; 1 for a balanced router. P is
// linear, so every rank adds its own tokens' part divided by the tokens of the global batch, and
// the sum over ranks and micro-batches is the loss of the global batch.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
#include "model/inputs.h"
#include "model/moe/routing_record.h"
#include "model/parameter_store.h"
#include "model/spec.h"
#include "parallel/mesh.h"

namespace moebius {

class Balance {
 public:
  Balance(const MoeSpec& spec, const std::string& prefix, ParameterStore& store, Context& context,
          Mesh& mesh, DType router);

  // Added to the scores for the choice of experts; undefined without bias balancing.  [E]
  Tensor selection_bias() const { return bias_ == nullptr ? Tensor() : bias_->value; }

  // Counts the plan, once, and records the losses of this micro-batch. logits, scores [T, E] of the
  // token shard.
  void Apply(Tape& tape, const Var& logits, const Var& scores, const RoutingPlan& plan,
             const MicroBatch& batch, const StepInputs& step);

  // Between steps. After a counting pass its counts, summed over all ranks, become this step's.
  void BeginStep();
  void EndCountingPass();
  const RoutingRecord& record() const { return record_; }
  RoutingRecord& record() { return record_; }

  // `counts` [E] F64 of the whole global batch: remembered for the next step, and followed by the
  // bias, unless context.step_state() says that nothing is updated.
  void EndStep(const Tensor& counts);

 private:
  Tensor Add(const Tensor& value, const Tensor& sum);
  Tensor Count(const RoutingPlan& plan, const StepInputs& step);
  void SumCountsOverRanks();
  Tensor GlobalFractions(const StepInputs& step);
  Tensor FractionsOfGroups(const RoutingPlan& plan, int64_t num_groups, int64_t tokens_per_group);
  Tensor FractionsOf(const Tensor& counts);

  const MoeSpec& spec_;
  Context& context_;
  Communicator& batch_group_;        // ranks that share the tokens of a global batch
  Communicator& micro_batch_group_;  // ranks that share the tokens of a micro-batch
  const DType router_;
  Buffer* last_counts_;     // [E] F64: of the step before, all ranks
  Buffer* bias_ = nullptr;  // [E] in the router's dtype
  Tensor step_counts_;      // [E] F64, all ranks: running, or of the counting pass
  RoutingRecord record_;
};

}  // namespace moebius
