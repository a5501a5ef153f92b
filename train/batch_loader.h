// From samples to a rank's micro-batches. Micro-batch m of a global batch is always
// its samples [m * b, (m + 1) * b); which ranks run it, and which of its tokens each, is layout.
#pragma once

#include <vector>

#include "core/placement/placement.h"
#include "core/tensor/context.h"
#include "data/batch.h"
#include "model/inputs.h"

namespace moebius {

// The tokens of `samples`, put one behind the other, that the rank at `at` has: in memory of the
// host, side by side.
// `sample_index` [samples.size()] names them over the whole run. Loss weights are in `dtype` (F32
// or F64) and not yet divided. No sample: T is zero. REQUIRES: the sequence length divides by twice
// the context size (if that is more than 1) times the tensor size. On kMeta samples may be empty.
struct MicroBatchOptions {
  int64_t sequence_length = 0;
  bool attention_within_documents = true;
  DType dtype = DType::kF32;
  MeshPosition at = {};
};
MicroBatch MakeMicroBatch(const std::vector<Sample>& samples,
                          const std::vector<int64_t>& sample_index,
                          const MicroBatchOptions& options, Context& context);

// A micro-batch of MakeMicroBatch on the context's device: one copy, in the order of its work.
MicroBatch ToDevice(const MicroBatch& batch, Context& context);
std::vector<MicroBatch> ToDevice(const std::vector<MicroBatch>& batches, Context& context);
// Into one that ToDevice has made of a micro-batch of the same sizes.
void CopyToDevice(const MicroBatch& batch, const MicroBatch& there);

// Of micro-batches that are the host's.
// Sum of loss weights, and tokens that are not padding: of the T tokens, which the ranks of the
// tensor axis share.
struct BatchTotals {
  double loss_weight = 0;
  double tokens = 0;
};
BatchTotals TotalsOf(const MicroBatch& batch);

// Divides the loss weights by those of the global batch.
void NormalizeLossWeights(double total_loss_weight, const MicroBatch& batch);

}  // namespace moebius
