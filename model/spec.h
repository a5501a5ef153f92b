// What a model is, as plain numbers: the proto's fields with their defaults resolved.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/model.pb.h"
#include "core/base/status.h"
#include "core/tensor/dtype.h"

namespace moebius {

// In which types a step computes.
struct DtypePolicy {
  DType compute = DType::kF32;  // activations and products
  DType master = DType::kF32;   // parameters, main gradients, moments
  DType router = DType::kF32;   // logits, scores and pair weights

  static DtypePolicy For(DType compute);  // F64: everything in F64
};

struct BalanceLossSpec {
  enum class Scope { kMicroBatch, kSequence, kGlobalBatch };
  Scope scope = Scope::kGlobalBatch;
  double weight = 0;
};

struct MoeSpec {
  enum class Score { kSoftmax, kSigmoid };
  enum class GlobalCounts { kPreviousStep, kExact, kRunning };
  enum class DebugRouting { kNone, kRandom, kAllToOne, kSomeEmpty };

  int64_t num_experts = 0;         // E; 0: dense
  int64_t top_k = 0;               // K
  int64_t expert_hidden_size = 0;  // F
  int64_t num_shared_experts = 0;
  Score score = Score::kSoftmax;
  bool renormalize = true;
  double scale = 1;
  std::vector<BalanceLossSpec> balance_losses = {};
  GlobalCounts global_counts = GlobalCounts::kPreviousStep;
  double z_loss_weight = 0;
  double bias_update_rate = 0;
  DebugRouting debug_routing = DebugRouting::kNone;

  bool needs_global_counts() const;  // within a step
};

struct ModelSpec {
  enum class QkNorm { kNone, kPerHead, kWhole };

  int64_t num_layers = 0;    // L
  int64_t hidden_size = 0;   // D
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G
  int64_t head_dim = 0;      // C
  int64_t vocab_size = 0;    // V
  int64_t ffn_hidden_size = 0;
  bool tie_embeddings = false;
  double rope_theta = 10000;
  double norm_epsilon = 1e-5;
  QkNorm qk_norm = QkNorm::kNone;
  double init_std = 0.02;
  MoeSpec moe = {};
  std::vector<bool> is_moe_layer = {};  // [L]

  // `tokenizer_vocab_size` stands in where the config names none; a smaller one is refused.
  static absl::StatusOr<ModelSpec> FromProto(const ModelConfig& config,
                                             int64_t tokenizer_vocab_size);

  // Floating point operations of one forward pass per token, products only, over the parameters
  // that a token meets: linears, head, and the causal half of attention over `sequence_length`
  // positions.
  double ForwardFlopsPerToken(int64_t sequence_length) const;
};

}  // namespace moebius
