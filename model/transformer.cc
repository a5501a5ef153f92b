#include "model/transformer.h"

#include <algorithm>
#include <limits>

#include "kernels/cross_entropy.h"
#include "kernels/linear.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"

namespace moebius {
namespace {

double Sum(const std::vector<Tensor>& values) {
  double sum = 0;
  for (const Tensor& value : values) sum += value.data<double>()[0];
  return sum;
}

}  // namespace

Transformer::Transformer(const ModelSpec& spec, const DtypePolicy& policy, Mesh& mesh,
                         Context& context)
    : spec_(spec),
      policy_(policy),
      mesh_(mesh),
      context_(context),
      store_(context, mesh.position(), policy.master) {
  const auto add_table = [&](const char* name) {
    return store_.AddParameter({.name = name,
                                .shape = {spec.vocab_size, spec.hidden_size},
                                .standard_deviation = spec.init_std,
                                .cuts = {store_.CutOver(Axis::kTensor, 0, spec.vocab_size)}});
  };
  embedding_ = add_table("embedding.weight");
  const std::vector<Piece> rows = embedding_->placement.Pieces(mesh.position());
  vocabulary_ = {.first = rows.empty() ? 0 : rows[0].begin[0], .size = spec.vocab_size};
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    blocks_.push_back(std::make_unique<Block>(spec_, layer, store_, mesh, context, policy));
  }
  final_norm_ = store_.AddParameter({"final_norm.weight", {spec.hidden_size}});
  head_ = spec.tie_embeddings ? embedding_ : add_table("head.weight");
  if (spec.tie_embeddings) embedding_->num_uses = 2;
}

Var Transformer::Hidden(Tape& tape, const MicroBatch& batch, const StepInputs& step) {
  Communicator* const tensor_group = &mesh_.group(Axis::kTensor);
  const Var embedded = ops::Embedding(tape, batch.tokens, embedding_, policy_.compute, vocabulary_);
  Bundle bundle{{{"hidden", ScatterSequence(tape, embedded, batch.over_tensor, tensor_group)}},
                BlockState{&batch, &step, {}}};
  for (const auto& block : blocks_) bundle = block->Forward(tape, std::move(bundle));
  const Var normed = ops::RmsNorm(tape, bundle["hidden"], final_norm_, spec_.norm_epsilon);
  return GatherSequence(tape, normed, batch.over_tensor, tensor_group);
}

// Statistics of rows of logits are made whole over the ranks that share the vocabulary.
ops::VocabularyPart Transformer::HeadPart() {
  Communicator& ranks = mesh_.group(Axis::kTensor);
  if (ranks.size() == 1) return {};
  return {.first = vocabulary_.first,
          .size = vocabulary_.size,
          .combine = [this, &ranks](const Tensor& statistics) {
            const int64_t rows = statistics.shape()[0];
            const Tensor parts =
                context_.Empty(DType::kF64, {ranks.size(), rows, 3}, "cross_entropy.statistics");
            if (!context_.device().is_meta()) ranks.AllGather(statistics, parts).Wait();
            kernels::CombineStatistics(parts, statistics, context_);
          }};
}

Tensor Transformer::Loss(Tape& tape, const MicroBatch& batch, const StepInputs& step) {
  const Var hidden = Hidden(tape, batch, step);
  return ops::CrossEntropyLoss(tape, hidden, head_, batch.labels, batch.loss_weights, HeadPart());
}

void Transformer::CountRouting(Tape& tape, const MicroBatch& batch, StepInputs step) {
  step.pass = Pass::kCount;
  Hidden(tape, batch, step);
}

Tensor Transformer::TokenLosses(Tape& tape, const MicroBatch& batch) {
  const StepInputs evaluation{.pass = Pass::kEvaluate};
  const Var hidden = Hidden(tape, batch, evaluation);
  return ops::TokenLosses(tape, hidden, head_, batch.labels, batch.loss_weights, HeadPart());
}

Tensor Transformer::LastLogits(Tape& tape, const MicroBatch& batch, int64_t count) {
  const StepInputs evaluation{.pass = Pass::kEvaluate};
  CHECK_EQ(head_->value.shape()[0], spec_.vocab_size) << "a part of the vocabulary";
  const Var hidden = Hidden(tape, batch, evaluation);
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

RoutingSummary Transformer::SummarizeRouting() {
  RoutingSummary summary;
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    if (blocks_[layer]->moe() != nullptr) summary.layers.push_back(layer);
  }
  const auto num_layers = static_cast<int64_t>(summary.layers.size());
  if (num_layers == 0 || context_.device().is_meta()) return summary;

  // One exchange for all layers: counts, then the two losses.
  const int64_t E = spec_.moe.num_experts, width = E + 2;
  const Tensor sums = context_.Zeros(DType::kF64, {num_layers, width}, "routing.sums");
  for (int64_t i = 0; i < num_layers; ++i) {
    const RoutingRecord& record = blocks_[summary.layers[i]]->moe()->balance().record();
    double* row = sums.data<double>() + i * width;
    std::copy_n(record.counts.data<double>(), E, row);
    row[E] = Sum(record.balance_losses);
    row[E + 1] = Sum(record.z_losses);
    for (const Tensor& margin : record.margins) {
      summary.min_margin = std::min(summary.min_margin, margin.data<double>()[0]);
    }
  }
  mesh_.group_over({Axis::kData, Axis::kContext, Axis::kTensor}).AllReduce(sums).Wait();

  const auto num_losses = static_cast<double>(std::max<size_t>(spec_.moe.balance_losses.size(), 1));
  for (int64_t i = 0; i < num_layers; ++i) {
    const double* row = sums.data<double>() + i * width;
    summary.counts.emplace_back(row, row + E);
    summary.balance_loss += row[E] / num_losses / static_cast<double>(num_layers);
    summary.z_loss += row[E + 1] / static_cast<double>(num_layers);
  }
  return summary;
}

void Transformer::FollowRouting(const RoutingSummary& summary) {
  for (size_t i = 0; i < summary.counts.size(); ++i) {
    blocks_[summary.layers[i]]->moe()->balance().EndStep(summary.counts[i].data());
  }
}

}  // namespace moebius
