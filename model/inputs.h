// What a micro-batch brings into the model. Letters: B sequences of S positions.
//
// Its tokens are divided twice, each time by the positions of every sequence: over the context axis
// into the T = B * S / context_size tokens that products and attention's queries see, and those
// over the tensor axis into the token shards, of T / tensor_size tokens, on which norms, residuals
// and routing work ("sequence parallelism", arXiv 2205.05198).
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"
#include "kernels/attention.h"
#include "model/selection_hook.h"
#include "parallel/ops/sequence.h"

namespace moebius {

// On the rank's device. T may be zero: a rank without work runs along.
struct MicroBatch {
  int64_t num_sequences = 0;          // B
  int64_t sequence_length = 0;        // S
  SequenceCut over_context = {};      // how sequences are cut into those of the T tokens,
  SequenceCut over_tensor = {};       // and these into token shards
  kernels::QueryChunks queries = {};  // the positions that the T tokens have in each sequence
  Tensor tokens;                      // [T] int32
  Tensor labels;                      // [T] int32
  Tensor positions;                   // [T] int32
  Tensor document_ids;                // [T] int32; -1: padding
  Tensor loss_weights;  // [T] F32 or F64: of the loss, divided by the global batch's sum
  // [B * S] int32, of all positions. What attention may see lies within one id.
  Tensor sequence_document_ids;

  // This rank's token shard, [T / tensor_size].
  struct Shard {
    int64_t positions = 0;    // of each sequence
    int64_t num_tokens = -1;  // that are not padding; -1: whoever must know counts them
    Tensor document_ids;      // int32
    Tensor token_index;       // int64: global, over the whole run; names per-token draws
  };
  Shard shard = {};
};

// What a forward pass is for.
enum class Pass {
  kTrain,
  kCount,     // only counts the experts' pairs (GlobalCounts::kExact)
  kEvaluate,  // no losses of the router
};

// Dispatch by messages of a fixed length (parallel/ops/bounded_exchange.h): a rank has room for
// `capacity` times the rows that it sends another where routing is even, or for all that there can
// be.
struct BoundedDispatch {
  double capacity = 0;     // 0: messages have the length of what there is, which the host reads
  int64_t max_tokens = 0;  // of a token shard, on any rank, in any micro-batch of the step
  Tensor overflow = {};    // [1] F64 on the device: becomes 1 where rows of this rank lack room
};

// What the step says to its micro-batches.
struct StepInputs {
  double num_tokens = 0;  // of the global batch, without padding: divides router losses
  int64_t micro_batches_per_rank = 1;
  bool records_margins = false;  // of the choice of experts, for diagnosis
  Pass pass = Pass::kTrain;
  uint64_t seed = 0;                              // of debug routing
  const SelectionHook* selection_hook = nullptr;  // outlives the step
  BoundedDispatch dispatch = {};                  // where no hook chooses: it may choose any number
};

}  // namespace moebius
