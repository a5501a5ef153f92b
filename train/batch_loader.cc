#include "train/batch_loader.h"

#include <algorithm>
#include <cstring>

namespace moebius {
namespace {

template <class T>
void NormalizeAs(double total, const Tensor& weights) {
  for (T& weight : weights.span<T>()) weight = static_cast<T>(weight / total);
}

void CopyTo(const std::vector<int32_t>& numbers, int64_t at, const Tensor& x) {
  std::ranges::copy(numbers, x.data<int32_t>() + at);
}

}  // namespace

MicroBatch MakeMicroBatch(const std::vector<Sample>& samples,
                          const std::vector<int64_t>& sample_index, int64_t sequence_length,
                          bool attention_within_documents, DType dtype, Context& context) {
  const int64_t B = std::ssize(samples), S = sequence_length, T = B * S;
  const auto int32s = [&] { return context.Empty(DType::kI32, {T}, "batch"); };
  MicroBatch batch{.num_sequences = B,
                   .sequence_length = S,
                   .tokens = int32s(),
                   .labels = int32s(),
                   .positions = int32s(),
                   .document_ids = int32s(),
                   .loss_weights = context.Empty(dtype, {T}, "batch"),
                   .token_index = context.Empty(DType::kI64, {T}, "batch")};
  for (int64_t b = 0; b < B; ++b) {
    const Sample& sample = samples[b];
    CHECK_EQ(std::ssize(sample.tokens), S);
    CopyTo(sample.tokens, b * S, batch.tokens);
    CopyTo(sample.labels, b * S, batch.labels);
    CopyTo(sample.positions, b * S, batch.positions);
    CopyTo(sample.document_ids, b * S, batch.document_ids);
    for (int64_t s = 0; s < S; ++s) {
      const int64_t t = b * S + s;
      if (dtype == DType::kF64) {
        batch.loss_weights.data<double>()[t] = sample.loss_weights[s];
      } else {
        batch.loss_weights.data<float>()[t] = sample.loss_weights[s];
      }
      batch.token_index.data<int64_t>()[t] = sample_index[b] * S + s;
      // One id for a whole sequence lets attention see everything before; padding stays apart.
      int32_t& document = batch.document_ids.data<int32_t>()[t];
      if (!attention_within_documents && document >= 0) document = 0;
    }
  }
  return batch;
}

BatchTotals TotalsOf(const MicroBatch& batch) {
  BatchTotals totals;
  const Tensor& weights = batch.loss_weights;
  for (int64_t t = 0; t < weights.size(); ++t) {
    totals.loss_weight +=
        weights.dtype() == DType::kF64 ? weights.data<double>()[t] : weights.data<float>()[t];
  }
  for (const int32_t document : batch.document_ids.span<int32_t>()) totals.tokens += document >= 0;
  return totals;
}

void NormalizeLossWeights(double total_loss_weight, const MicroBatch& batch) {
  if (batch.loss_weights.dtype() == DType::kF64) {
    NormalizeAs<double>(total_loss_weight, batch.loss_weights);
  } else {
    NormalizeAs<float>(total_loss_weight, batch.loss_weights);
  }
}

}  // namespace moebius
