// One optimizer step of one rank: its micro-batches forward and backward, reduction, clipping,
// update.
#pragma once

#include <vector>

#include "core/tensor/context.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"

namespace moebius {

struct StepResult {
  double loss = 0;           // mean cross-entropy in nats over the global batch, before the update
  double tokens = 0;         // of the global batch, without padding
  double gradient_norm = 0;  // before clipping
  RoutingSummary routing = {};
  bool updated = true;  // false: loss or norm was NaN or infinite, and nothing was changed
};

class TrainStep {
 public:
  // All outlive this object. clip_norm 0: no clipping.
  TrainStep(Transformer& model, AdamW& optimizer, WeightSource& weights, GradientBuckets& buckets,
            Mesh& mesh, Context& context, double clip_norm, uint64_t seed)
      : model_(model),
        optimizer_(optimizer),
        weights_(weights),
        buckets_(buckets),
        mesh_(mesh),
        context_(context),
        clip_norm_(clip_norm),
        seed_(seed) {}

  void set_records_margins(bool records) { records_margins_ = records; }

  // All ranks call it together, each with its own micro-batches, as many on every rank (those of a
  // rank without work hold no token). context.step() says step and learning rate.
  StepResult Run(const std::vector<MicroBatch>& micro_batches);

 private:
  StepInputs Normalize(const std::vector<MicroBatch>& micro_batches);
  void CountExactly(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);
  double ForwardBackward(const std::vector<MicroBatch>& micro_batches, const StepInputs& step);

  Transformer& model_;
  AdamW& optimizer_;
  WeightSource& weights_;
  GradientBuckets& buckets_;
  Mesh& mesh_;
  Context& context_;
  const double clip_norm_;
  const uint64_t seed_;
  bool records_margins_ = false;
};

}  // namespace moebius
