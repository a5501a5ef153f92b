// From samples to a rank's micro-batches on its device. Micro-batch m of a global batch is always
// its samples [m * b, (m + 1) * b); which rank runs it is layout.
#pragma once

#include <vector>

#include "core/tensor/context.h"
#include "data/batch.h"
#include "model/inputs.h"

namespace moebius {

// Samples put one behind the other, on the device. `sample_index` [samples.size()] names them over
// the whole run. Loss weights are in `dtype` (F32 or F64) and not yet divided. No sample: T is
// zero.
MicroBatch MakeMicroBatch(const std::vector<Sample>& samples,
                          const std::vector<int64_t>& sample_index, int64_t sequence_length,
                          bool attention_within_documents, DType dtype, Context& context);

// Sum of loss weights, and tokens that are not padding.
struct BatchTotals {
  double loss_weight = 0;
  double tokens = 0;
};
BatchTotals TotalsOf(const MicroBatch& batch);

// Divides the loss weights by those of the global batch.
void NormalizeLossWeights(double total_loss_weight, const MicroBatch& batch);

}  // namespace moebius
