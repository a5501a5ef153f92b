// What a micro-batch brings into the model. Letters: B sequences, S positions, T = B * S tokens.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace moebius {

// On the rank's device. T may be zero: a rank without work runs along.
struct MicroBatch {
  int64_t num_sequences = 0;    // B
  int64_t sequence_length = 0;  // S
  Tensor tokens;                // [T] int32
  Tensor labels;                // [T] int32
  Tensor positions;             // [T] int32
  Tensor document_ids;  // [T] int32; -1: padding. What attention may see lies within one id.
  Tensor loss_weights;  // [T] F32 or F64: of the loss, divided by the global batch's sum
  Tensor token_index;   // [T] int64: global, over the whole run; names per-token draws
};

// What a forward pass is for.
enum class Pass {
  kTrain,
  kCount,     // only counts the experts' pairs (GlobalCounts::kExact)
  kEvaluate,  // no losses of the router
};

// What the step says to its micro-batches.
struct StepInputs {
  double num_tokens = 0;  // of the global batch, without padding: divides router losses
  int64_t micro_batches_per_rank = 1;
  bool records_margins = false;  // of the choice of experts, for diagnosis
  Pass pass = Pass::kTrain;
  uint64_t seed = 0;  // of debug routing
};

}  // namespace moebius
