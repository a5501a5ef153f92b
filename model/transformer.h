// A decoder-only transformer language model on one rank: embedding, blocks, final norm, head, or
// the chunks of it that the rank's pipeline stage has.
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
#include "model/weight_order.h"
#include "parallel/mesh.h"

namespace moebius {

// What a step's routing did over the whole global batch. Layers: the MoE layers, in order.
struct RoutingSummary {
  double balance_loss = 0;  // mean over layers and losses, unweighted: 1 is balanced
  double z_loss = 0;        // mean over layers, unweighted
  std::vector<int64_t> layers;
  std::vector<std::vector<double>> counts;  // [layers][E] pairs of each expert
  // Over the layers of this stage, of the choices for this rank's tokens (kernels::TopKMargin),
  // when recorded.
  double min_margin = std::numeric_limits<double>::infinity();
};

// Consecutive layers, with the embedding before the first one or the head behind the last one.
struct ModelChunk {
  int64_t first_layer = 0;
  int64_t end_layer = 0;
  bool embeds = true;
  bool has_head = true;

  bool has(int64_t layer) const { return first_layer <= layer && layer < end_layer; }
};

class Transformer {
 public:
  // What of the model runs here, and how; never changes a number.
  struct Options {
    std::vector<ModelChunk> chunks = {};  // none: the whole model in one
    Recompute recompute = Recompute::kNone;
    DispatcherKind dispatcher = DispatcherKind::kAllToAll;
    bool allocates_parameters = true;  // false: they are NoValue, and ranks share them out
  };

  // Parameters start uninitialised: `store().Initialize(seed)` or a checkpoint fills them.
  // context and mesh outlive the model.
  Transformer(const ModelSpec& spec, const DtypePolicy& policy, Mesh& mesh, Context& context,
              const Options& options);
  Transformer(const ModelSpec& spec, const DtypePolicy& policy, Mesh& mesh, Context& context)
      : Transformer(spec, policy, mesh, context, Options{}) {}

  // Runs a chunk forward, and records the router losses of its layers on `tape`; batch and step
  // outlive the tape. {"hidden": [tokens of the shard, D]} from the chunk before to the same for
  // the one behind. The first chunk takes {}; the last one gives the normed state of all T tokens.
  Bundle Forward(Tape& tape, int chunk, Bundle in, const MicroBatch& batch, const StepInputs& step);

  // What comes behind the last chunk. hidden [T, D].
  // The loss, recorded on the tape: [1] F64, the sum of loss weight * cross-entropy in nats.
  Tensor Loss(Tape& tape, const Var& hidden, const MicroBatch& batch);
  // Loss weight * cross-entropy of every token, [T] F64. Records nothing.
  Tensor TokenLosses(Tape& tape, const Var& hidden, const MicroBatch& batch);

  // Logits of the last `count` tokens of a batch of one sequence: [count, V] in F32 or F64.
  // REQUIRES: neither the model nor sequences are cut over ranks.
  Tensor LastLogits(Tape& tape, const MicroBatch& batch, int64_t count);

  // Around the micro-batches of a step. All ranks call them together.
  void BeginStep();
  void EndCountingPass();
  // Of the global batch: [MoE layers, E + 2] F64 on the device, for each the pairs of its experts,
  // then the sums of its balance and z-losses. Undefined without MoE layers.
  Tensor SumRouting();
  void FollowRouting(const Tensor& sums);        // biases and next step's counts
  RoutingSummary Summarize(const Tensor& sums);  // of these sums on the host

  const ModelSpec& spec() const { return spec_; }
  const DtypePolicy& policy() const { return policy_; }
  ParameterStore& store() { return store_; }
  const std::vector<ModelChunk>& chunks() const { return chunks_; }
  const std::vector<std::unique_ptr<Block>>& blocks() const { return blocks_; }  // by layer

  // The table that the first and the last stage share (tied embeddings); null where there is none.
  // Each stage gets the gradient of its own use.
  Parameter* shared_by_stages() { return shared_by_stages_; }

 private:
  Parameter* AddTable(const char* name, bool shared_by_stages);
  void OrderWeights(const std::vector<std::vector<Parameter*>>& of_blocks);
  kernels::VocabularyRange RangeOf(const Parameter& table) const;
  Var Embed(Tape& tape, const MicroBatch& batch);
  std::vector<int64_t> MoeLayers() const;
  template <class Fn>
  void ForBalances(const Fn& fn);
  Bundle Finish(Tape& tape, const Var& hidden, const MicroBatch& batch);
  ops::VocabularyPart HeadPart();

  const ModelSpec spec_;
  const DtypePolicy policy_;
  Mesh& mesh_;
  Context& context_;
  const std::vector<ModelChunk> chunks_;
  ParameterStore store_;
  // Null in stages without them.
  Parameter* embedding_ = nullptr;  // [V, D] | V over tensor
  std::vector<std::unique_ptr<Block>> blocks_;
  Parameter* final_norm_ = nullptr;  // [D]
  Parameter* head_ = nullptr;        // [V, D] | V over tensor; the embedding when tied
  Parameter* shared_by_stages_ = nullptr;
  std::vector<WeightOrder> weight_orders_;  // of the chunks
};

}  // namespace moebius
