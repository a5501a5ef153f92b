#include "model/spec.h"

#include <algorithm>

#include "core/base/check.h"

namespace moebius {
namespace {

BalanceLossSpec::Scope ScopeOf(BalanceLossConfig::Scope scope) {
  switch (scope) {
    case BalanceLossConfig::MICRO_BATCH:
      return BalanceLossSpec::Scope::kMicroBatch;
    case BalanceLossConfig::SEQUENCE:
      return BalanceLossSpec::Scope::kSequence;
    case BalanceLossConfig::GLOBAL_BATCH:
      return BalanceLossSpec::Scope::kGlobalBatch;
  }
  CHECK(false) << "no such scope";
}

MoeSpec::GlobalCounts GlobalCountsOf(BalanceConfig::GlobalCounts counts) {
  switch (counts) {
    case BalanceConfig::PREVIOUS_STEP:
      return MoeSpec::GlobalCounts::kPreviousStep;
    case BalanceConfig::EXACT:
      return MoeSpec::GlobalCounts::kExact;
    case BalanceConfig::RUNNING:
      return MoeSpec::GlobalCounts::kRunning;
  }
  CHECK(false) << "no such mode";
}

MoeSpec::DebugRouting DebugRoutingOf(MoeConfig::DebugRouting routing) {
  switch (routing) {
    case MoeConfig::NONE:
      return MoeSpec::DebugRouting::kNone;
    case MoeConfig::RANDOM:
      return MoeSpec::DebugRouting::kRandom;
    case MoeConfig::ALL_TO_ONE:
      return MoeSpec::DebugRouting::kAllToOne;
    case MoeConfig::SOME_EMPTY:
      return MoeSpec::DebugRouting::kSomeEmpty;
  }
  CHECK(false) << "no such routing";
}

MoeSpec MoeFromProto(const MoeConfig& config) {
  MoeSpec moe{.num_experts = config.num_experts(),
              .top_k = config.top_k(),
              .expert_hidden_size = config.expert_hidden_size(),
              .num_shared_experts = config.num_shared_experts(),
              .score = config.router().score() == RouterConfig::SIGMOID ? MoeSpec::Score::kSigmoid
                                                                        : MoeSpec::Score::kSoftmax,
              .renormalize = config.router().renormalize(),
              .scale = config.router().scale(),
              .balance_losses = {},
              .global_counts = GlobalCountsOf(config.balance().global_counts()),
              .z_loss_weight = config.balance().z_loss_weight(),
              .bias_update_rate = config.balance().bias_update_rate(),
              .debug_routing = DebugRoutingOf(config.debug_routing())};
  for (const BalanceLossConfig& loss : config.balance().loss()) {
    moe.balance_losses.push_back({ScopeOf(loss.scope()), loss.weight()});
  }
  return moe;
}

ModelSpec::QkNorm QkNormOf(ModelConfig::QkNorm norm) {
  switch (norm) {
    case ModelConfig::NONE:
      return ModelSpec::QkNorm::kNone;
    case ModelConfig::PER_HEAD:
      return ModelSpec::QkNorm::kPerHead;
    case ModelConfig::WHOLE:
      return ModelSpec::QkNorm::kWhole;
  }
  CHECK(false) << "no such norm";
}

}  // namespace

DtypePolicy DtypePolicy::For(DType compute) {
  if (compute == DType::kF64) return {DType::kF64, DType::kF64, DType::kF64};
  return {compute, DType::kF32, DType::kF32};
}

bool MoeSpec::needs_global_counts() const {
  return std::ranges::any_of(balance_losses, [](const BalanceLossSpec& loss) {
    return loss.scope == BalanceLossSpec::Scope::kGlobalBatch;
  });
}

absl::StatusOr<ModelSpec> ModelSpec::FromProto(const ModelConfig& config,
                                               int64_t tokenizer_vocab_size) {
  ModelSpec spec{.num_layers = config.num_layers(),
                 .hidden_size = config.hidden_size(),
                 .num_heads = config.num_heads(),
                 .num_kv_heads = config.num_kv_heads(),
                 .head_dim = config.head_dim(),
                 .vocab_size = config.vocab_size(),
                 .ffn_hidden_size = config.ffn_hidden_size(),
                 .tie_embeddings = config.tie_embeddings(),
                 .rope_theta = config.rope_theta(),
                 .norm_epsilon = config.norm_epsilon(),
                 .qk_norm = QkNormOf(config.qk_norm()),
                 .init_std = config.init_std(),
                 .moe = MoeFromProto(config.moe()),
                 .is_moe_layer = {}};
  if (spec.num_kv_heads == 0) spec.num_kv_heads = spec.num_heads;
  if (spec.head_dim == 0) spec.head_dim = spec.hidden_size / spec.num_heads;
  if (spec.vocab_size == 0) spec.vocab_size = tokenizer_vocab_size;
  if (spec.vocab_size < tokenizer_vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("model.vocab_size: %d is smaller than the tokenizer's vocabulary of %d",
                        spec.vocab_size, tokenizer_vocab_size));
  }
  const bool every_layer = config.moe().layers().empty();
  spec.is_moe_layer.assign(spec.num_layers, spec.moe.num_experts > 0 && every_layer);
  if (spec.moe.num_experts > 0) {
    for (const int layer : config.moe().layers()) spec.is_moe_layer[layer] = true;
  }
  return spec;
}

double ModelSpec::ForwardFlopsPerToken(int64_t sequence_length) const {
  const double D = hidden_size, heads = num_heads * head_dim, kv_heads = num_kv_heads * head_dim;
  const double attention = 2 * D * (2 * heads + 2 * kv_heads) + 2.0 * sequence_length * heads;
  double flops = num_layers * attention + 2 * D * vocab_size;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (!is_moe_layer[layer]) {
      flops += 6 * D * ffn_hidden_size;
    } else {
      flops += 2 * D * moe.num_experts +
               6 * D * moe.expert_hidden_size * (moe.top_k + moe.num_shared_experts);
    }
  }
  return flops;
}

}  // namespace moebius
