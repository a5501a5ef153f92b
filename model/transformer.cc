#include "model/transformer.h"

#include <algorithm>
#include <utility>

#include "core/tensor/copy.h"
#include "kernels/cross_entropy.h"
#include "kernels/linear.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"

namespace moebius {
Transformer::Transformer(const ModelSpec& spec, const DtypePolicy& policy, Mesh& mesh,
                         Context& context, const Options& options)
    : spec_(spec),
      policy_(policy),
      mesh_(mesh),
      context_(context),
      chunks_(options.chunks.empty() ? std::vector<ModelChunk>{{.end_layer = spec.num_layers}}
                                     : options.chunks),
      store_(context, mesh.position(), policy.master, options.allocates_parameters) {
  const bool embeds = std::ranges::any_of(chunks_, &ModelChunk::embeds);
  const bool has_head = std::ranges::any_of(chunks_, &ModelChunk::has_head);
  const bool shared = spec.tie_embeddings && embeds != has_head;
  if (embeds || shared) embedding_ = AddTable("embedding.weight", shared);
  std::vector<std::vector<Parameter*>> of_blocks;
  for (const ModelChunk& chunk : chunks_) {
    for (int64_t layer = chunk.first_layer; layer < chunk.end_layer; ++layer) {
      const size_t first = store_.size();
      blocks_.push_back(std::make_unique<Block>(
          spec_, layer, store_, mesh, context, policy,
          Block::Options{.recompute = options.recompute, .dispatcher = options.dispatcher}));
      of_blocks.push_back(store_.parameters(first));
    }
  }
  if (has_head) {
    final_norm_ = store_.AddParameter({"final_norm.weight", {spec.hidden_size}});
    head_ = spec.tie_embeddings ? embedding_ : AddTable("head.weight", false);
  }
  if (shared) shared_by_stages_ = embedding_;
  if (spec.tie_embeddings && embeds && has_head) embedding_->num_uses = 2;
  OrderWeights(of_blocks);
}

// The embedding's backward reads no weight, and that of the head has run forward
// (ops/cross_entropy).
void Transformer::OrderWeights(const std::vector<std::vector<Parameter*>>& of_blocks) {
  for (const ModelChunk& chunk : chunks_) {
    WeightOrder order;
    if (chunk.embeds) order.Add({.forward = {embedding_}, .backward = {}});
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (chunk.has(blocks_[i]->layer())) order.Add({of_blocks[i], of_blocks[i]});
    }
    if (chunk.has_head) order.Add({.forward = {final_norm_, head_}, .backward = {final_norm_}});
    weight_orders_.push_back(std::move(order));
  }
}

Parameter* Transformer::AddTable(const char* name, bool shared_by_stages) {
  return store_.AddParameter({.name = name,
                              .shape = {spec_.vocab_size, spec_.hidden_size},
                              .standard_deviation = spec_.init_std,
                              .cuts = {store_.CutOver(Axis::kTensor, 0, spec_.vocab_size)},
                              .shared_by_stages = shared_by_stages});
}

// The rows of a table that this rank has.
kernels::VocabularyRange Transformer::RangeOf(const Parameter& table) const {
  const std::vector<Piece> rows = table.placement.Pieces(mesh_.position());
  return {.first = rows.empty() ? 0 : rows[0].begin[0], .size = spec_.vocab_size};
}

Bundle Transformer::Forward(Tape& tape, int chunk, Bundle in, const MicroBatch& batch,
                            const StepInputs& step) {
  const ModelChunk& part = chunks_[chunk];
  const WeightOrder& order = weight_orders_[chunk];
  size_t unit = 0;
  Bundle bundle = std::move(in);
  if (part.embeds) {
    order.Run(tape, unit++, [&] { bundle = {{{"hidden", Embed(tape, batch)}}, {}}; });
  }
  bundle.state = BlockState{&batch, &step, {}};
  for (const auto& block : blocks_) {
    if (!part.has(block->layer())) continue;
    order.Run(tape, unit++, [&] { bundle = block->Forward(tape, std::move(bundle)); });
  }
  if (part.has_head) order.Run(tape, unit, [&] { bundle = Finish(tape, bundle["hidden"], batch); });
  return bundle;
}

// What the head reads.
Bundle Transformer::Finish(Tape& tape, const Var& hidden, const MicroBatch& batch) {
  const Var normed = ops::RmsNorm(tape, hidden, final_norm_, spec_.norm_epsilon);
  return {
      {{"hidden", GatherSequence(tape, normed, batch.over_tensor, &mesh_.group(Axis::kTensor))}},
      {}};
}

Var Transformer::Embed(Tape& tape, const MicroBatch& batch) {
  const Var all =
      ops::Embedding(tape, batch.tokens, embedding_, policy_.compute, RangeOf(*embedding_));
  return ScatterSequence(tape, all, batch.over_tensor, &mesh_.group(Axis::kTensor));
}

// Statistics of rows of logits are made whole over the ranks that share the vocabulary.
ops::VocabularyPart Transformer::HeadPart() {
  Communicator& ranks = mesh_.group(Axis::kTensor);
  if (ranks.size() == 1) return {};
  const kernels::VocabularyRange range = RangeOf(*head_);
  return {.first = range.first,
          .size = range.size,
          .combine = [this, &ranks](const Tensor& statistics) {
            const int64_t rows = statistics.shape()[0];
            const Tensor parts =
                context_.Empty(DType::kF64, {ranks.size(), rows, 3}, "cross_entropy.statistics");
            ranks.AllGather(statistics, parts).Wait();
            kernels::CombineStatistics(parts, statistics, context_);
          }};
}

Tensor Transformer::Loss(Tape& tape, const Var& hidden, const MicroBatch& batch) {
  return ops::CrossEntropyLoss(tape, hidden, head_, batch.labels, batch.loss_weights, HeadPart());
}

Tensor Transformer::TokenLosses(Tape& tape, const Var& hidden, const MicroBatch& batch) {
  return ops::TokenLosses(tape, hidden, head_, batch.labels, batch.loss_weights, HeadPart());
}

Tensor Transformer::LastLogits(Tape& tape, const MicroBatch& batch, int64_t count) {
  const StepInputs evaluation{.pass = Pass::kEvaluate};
  CHECK_EQ(head_->value.shape()[0], spec_.vocab_size) << "a part of the vocabulary";
  const Bundle out = Forward(tape, 0, {}, batch, evaluation);
  const Var& hidden = out["hidden"];
  const int64_t T = hidden.shape()[0];
  const DType precise = policy_.compute == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor logits = context_.Empty(precise, {count, spec_.vocab_size}, "logits");
  kernels::Linear({.x = hidden.value().Slice(T - count, T),
                   .w = tape.Weight(head_, WeightFormat::kPacked, policy_.compute),
                   .offsets = {},
                   .y = logits},
                  context_);
  return logits;
}

void Transformer::BeginStep() {
  for (const auto& block : blocks_) {
    if (block->moe() != nullptr) block->moe()->balance().BeginStep();
  }
}

void Transformer::EndCountingPass() {
  for (const auto& block : blocks_) {
    if (block->moe() != nullptr) block->moe()->balance().EndCountingPass();
  }
}

std::vector<int64_t> Transformer::MoeLayers() const {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    if (spec_.is_moe_layer[layer]) layers.push_back(layer);
  }
  return layers;
}

// Calls fn(balance, index of its layer among the MoE layers) for the layers of this stage.
template <class Fn>
void Transformer::ForBalances(const Fn& fn) {
  const std::vector<int64_t> layers = MoeLayers();
  for (const auto& block : blocks_) {
    if (block->moe() == nullptr) continue;
    fn(block->moe()->balance(), std::ranges::find(layers, block->layer()) - layers.begin());
  }
}

// One exchange for all layers of all stages.
Tensor Transformer::SumRouting() {
  const auto num_layers = std::ssize(MoeLayers());
  if (num_layers == 0) return Tensor();
  const int64_t E = spec_.moe.num_experts;
  const Tensor sums = context_.Zeros(DType::kF64, {num_layers, E + 2}, "routing.sums");
  ForBalances([&](Balance& balance, int64_t index) {
    Copy(balance.record().sums, sums.Slice(index, index + 1));
  });
  mesh_.world().AllReduce(sums).Wait();
  return sums;
}

RoutingSummary Transformer::Summarize(const Tensor& sums) {
  RoutingSummary summary;
  summary.layers = MoeLayers();
  if (!sums.defined() || sums.device().is_meta()) return summary;
  const auto num_layers = static_cast<double>(summary.layers.size());
  const auto num_losses = static_cast<double>(std::max<size_t>(spec_.moe.balance_losses.size(), 1));
  const int64_t E = spec_.moe.num_experts;
  for (int64_t i = 0; i < sums.shape()[0]; ++i) {
    const double* row = sums.data<double>() + i * (E + 2);
    summary.counts.emplace_back(row, row + E);
    summary.balance_loss += row[E] / num_losses / num_layers;
    summary.z_loss += row[E + 1] / num_layers;
  }
  ForBalances([&](Balance& balance, int64_t) {
    for (const Tensor& margin : std::exchange(balance.record().margins, {})) {
      summary.min_margin = std::min(summary.min_margin, margin.data<double>()[0]);
    }
  });
  return summary;
}

void Transformer::FollowRouting(const Tensor& sums) {
  const int64_t E = spec_.moe.num_experts;
  ForBalances([&](Balance& balance, int64_t index) {
    balance.EndStep(sums.Slice(index, index + 1).Reshape({E + 2}).Slice(0, E));
  });
}

}  // namespace moebius
