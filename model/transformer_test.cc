#include "model/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "core/base/random.h"
#include "kernels/weight_images.h"
#include "parallel/gradient_buckets.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

constexpr int64_t kSequences = 2, kPositions = 6;

ModelSpec TinySpec() {
  ModelSpec spec{.num_layers = 3,
                 .hidden_size = 12,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .head_dim = 6,
                 .vocab_size = 17,
                 .ffn_hidden_size = 10,
                 .qk_norm = ModelSpec::QkNorm::kPerHead,
                 .init_std = 0.3,
                 .is_moe_layer = {true, false, true}};
  spec.moe = {.num_experts = 4,
              .top_k = 2,
              .expert_hidden_size = 8,
              .num_shared_experts = 1,
              .z_loss_weight = 0.1};
  return spec;
}

MicroBatch TinyBatch(Context& context) {
  constexpr int64_t T = kSequences * kPositions;
  const RandomStream stream(1, "tokens");
  const auto int32s = [&](const std::function<int32_t(int64_t)>& value) {
    const Tensor x = context.Empty(DType::kI32, {T}, "batch");
    for (int64_t t = 0; t < T; ++t) x.data<int32_t>()[t] = value(t);
    return x;
  };
  const Tensor document_ids = int32s([](int64_t t) {
    if (t == T - 1) return -1;  // padding
    return t % kPositions < 4 ? 0 : 1;
  });
  MicroBatch batch{.num_sequences = kSequences,
                   .sequence_length = kPositions,
                   .tokens = int32s([&](int64_t t) { return stream.Below(t, 17); }),
                   .labels = int32s([&](int64_t t) { return stream.Below(t + T, 17); }),
                   .positions = int32s([](int64_t t) { return t % kPositions; }),
                   .document_ids = document_ids,
                   .loss_weights = context.Empty(DType::kF64, {T}, "batch"),
                   .sequence_document_ids = document_ids,
                   .shard = {.positions = kPositions,
                             .document_ids = document_ids,
                             .token_index = context.Empty(DType::kI64, {T}, "batch")}};
  for (int64_t t = 0; t < T; ++t) {
    batch.loss_weights.data<double>()[t] = t == T - 1 ? 0.0 : 1.0 / (T - 1);
    batch.shard.token_index.data<int64_t>()[t] = t;
  }
  return batch;
}

// One rank in FP64 with everything that a step needs.
class Rank {
 public:
  Rank(const ModelSpec& spec, Communicator& world)
      : mesh_(*Mesh::Create({}, world)),
        weights_(context_),
        model_(spec, DtypePolicy::For(DType::kF64), *mesh_, context_),
        buckets_(model_.store().parameters(), *mesh_, context_),
        batch_(TinyBatch(context_)) {
    model_.store().Initialize(7);
  }

  // The objective that gradients belong to: cross-entropy plus the weighted z-loss.
  double Objective(bool backward) {
    model_.BeginStep();
    buckets_.BeginStep(/*num_micro_batches=*/1);
    Tape tape(context_, weights_);
    const Bundle out = model_.Forward(tape, 0, {}, batch_, step_);
    const double loss = model_.Loss(tape, out["hidden"], batch_).data<double>()[0];
    if (backward) tape.Backward();
    for (const auto& [name, bytes] : tape.saved_bytes()) {
      if (backward) {
        EXPECT_EQ(bytes, 0) << name;
      }
    }
    buckets_.Reduce();
    summary_ = model_.Summarize(model_.SumRouting());
    const double layers = static_cast<double>(summary_.layers.size());
    return loss + model_.spec().moe.z_loss_weight * summary_.z_loss * layers;
  }

  Transformer& model() { return model_; }
  const RoutingSummary& summary() const { return summary_; }

 private:
  Context context_;
  std::unique_ptr<Mesh> mesh_;
  kernels::ResidentWeights weights_;
  Transformer model_;
  GradientBuckets buckets_;
  const MicroBatch batch_;
  const StepInputs step_{.num_tokens = kSequences * kPositions - 1};
  RoutingSummary summary_;
};

void CheckGradients(const ModelSpec& spec) {
  RunOnThreads(1, [&](Communicator& world) {
    Rank rank(spec, world);
    rank.Objective(/*backward=*/true);
    constexpr double kStep = 1e-5;
    const std::vector<Parameter*> parameters = rank.model().store().parameters();
    std::map<const Parameter*, std::vector<double>> gradients;
    for (const Parameter* parameter : parameters) {
      const auto gradient = parameter->gradient.span<double>();
      gradients[parameter].assign(gradient.begin(), gradient.end());
    }
    for (Parameter* parameter : parameters) {
      const std::vector<double>& gradient = gradients[parameter];
      const int64_t stride = std::max<int64_t>(parameter->value.size() / 7, 1);
      for (int64_t i = 0; i < parameter->value.size(); i += stride) {
        double& value = parameter->value.data<double>()[i];
        const double kept = value;
        const auto at = [&](double x) {
          value = x;
          ++parameter->version;
          return rank.Objective(/*backward=*/false);
        };
        const double numeric = (at(kept + kStep) - at(kept - kStep)) / (2 * kStep);
        at(kept);
        EXPECT_NEAR(gradient[i], numeric, 1e-7 + 1e-6 * std::abs(numeric))
            << parameter->name << " " << i;
      }
    }
  });
}

TEST(Transformer, GradientsMatchDifferences) { CheckGradients(TinySpec()); }

TEST(Transformer, GradientsWithTiedEmbeddingsAndSigmoidScores) {
  ModelSpec spec = TinySpec();
  spec.tie_embeddings = true;
  spec.qk_norm = ModelSpec::QkNorm::kWhole;
  spec.moe.score = MoeSpec::Score::kSigmoid;
  spec.moe.renormalize = false;
  spec.moe.scale = 1.5;
  CheckGradients(spec);
}

TEST(Transformer, CountsEveryPairOfRealTokens) {
  RunOnThreads(1, [&](Communicator& world) {
    Rank rank(TinySpec(), world);
    rank.Objective(/*backward=*/true);
    EXPECT_EQ(rank.summary().layers, (std::vector<int64_t>{0, 2}));
    for (const auto& counts : rank.summary().counts) {
      double pairs = 0;
      for (const double count : counts) pairs += count;
      EXPECT_EQ(pairs, 2 * (kSequences * kPositions - 1));
    }
  });
}

TEST(ModelSpec, FlopsCountActiveProducts) {
  ModelSpec spec = TinySpec();
  spec.num_layers = 1;
  spec.is_moe_layer = {true};
  const double attention = 2.0 * 12 * (2 * 24 + 2 * 12) + 2.0 * 6 * 24;
  const double moe = 2.0 * 12 * 4 + 3 * (6.0 * 12 * 8);
  EXPECT_DOUBLE_EQ(spec.ForwardFlopsPerToken(6), attention + moe + 2.0 * 12 * 17);
}

}  // namespace
}  // namespace moebius
