// A decoder-only transformer language model on one rank: embedding, blocks, final norm, head.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "core/tape/tape.h"
#include "kernels/embedding.h"
#include "kernels/ops/cross_entropy.h"
#include "model/block.h"
#include "model/inputs.h"
#include "model/parameter_store.h"
#include "model/spec.h"
#include "parallel/mesh.h"

namespace moebius {

// What a step's routing did over the whole global batch. Layers: the MoE layers, in order.
struct RoutingSummary {
  double balance_loss = 0;  // mean over layers and losses, unweighted: 1 is balanced
  double z_loss = 0;        // mean over layers, unweighted
  std::vector<int64_t> layers;
  std::vector<std::vector<double>> counts;  // [layers][E] pairs of each expert
  // Over layers, of the choices for this rank's tokens (kernels::TopKMargin), when recorded.
  double min_margin = std::numeric_limits<double>::infinity();
};

class Transformer {
 public:
  // Parameters start uninitialised: `store().Initialize(seed)` or a checkpoint fills them.
  // context and mesh outlive the model.
  Transformer(const ModelSpec& spec, const DtypePolicy& policy, Mesh& mesh, Context& context);

  // Records the loss and all router losses of a micro-batch on `tape`; batch and step outlive the
  // tape. Returns [1] F64: the sum over the T tokens of loss weight * cross-entropy in nats.
  Tensor Loss(Tape& tape, const MicroBatch& batch, const StepInputs& step);

  // Runs forward only as far as it takes to count the experts' pairs (GlobalCounts::kExact).
  void CountRouting(Tape& tape, const MicroBatch& batch, StepInputs step);

  // Loss weight * cross-entropy of every token, [T] F64. Runs forward only.
  Tensor TokenLosses(Tape& tape, const MicroBatch& batch);

  // Logits of the last `count` tokens of a batch of one sequence: [count, V] in F32 or F64.
  // REQUIRES: neither the model nor sequences are cut over ranks.
  Tensor LastLogits(Tape& tape, const MicroBatch& batch, int64_t count);

  // Around the micro-batches of a step. All ranks call them together.
  void BeginStep();
  void EndCountingPass();
  RoutingSummary SummarizeRouting();
  void FollowRouting(const RoutingSummary& summary);  // biases and next step's counts

  const ModelSpec& spec() const { return spec_; }
  const DtypePolicy& policy() const { return policy_; }
  ParameterStore& store() { return store_; }
  const std::vector<std::unique_ptr<Block>>& blocks() const { return blocks_; }

 private:
  // Normed, of all T tokens.  [T, D]
  Var Hidden(Tape& tape, const MicroBatch& batch, const StepInputs& step);
  ops::VocabularyPart HeadPart();

  const ModelSpec spec_;
  const DtypePolicy policy_;
  Mesh& mesh_;
  Context& context_;
  ParameterStore store_;
  kernels::VocabularyRange vocabulary_;  // of the rows that this rank has
  Parameter* embedding_;                 // [V, D] | V over tensor
  std::vector<std::unique_ptr<Block>> blocks_;
  Parameter* final_norm_;  // [D]
  Parameter* head_;        // [V, D] | V over tensor; the embedding when tied
};

}  // namespace moebius
