#include "train/batch_loader.h"

#include <algorithm>
#include <numeric>

#include "core/tensor/copy.h"

namespace moebius {
namespace {

template <class T>
void NormalizeAs(double total, const Tensor& weights) {
  for (T& weight : weights.span<T>()) weight = static_cast<T>(weight / total);
}

// The positions of each sequence that a rank has, of those in `of`.
std::vector<int64_t> Select(const std::vector<int64_t>& of, const SequenceCut& cut, int rank) {
  std::vector<int64_t> own;
  for (const SequenceChunk& chunk : SequenceChunks(cut, std::ssize(of), rank)) {
    own.insert(own.end(), of.begin() + chunk.begin, of.begin() + chunk.begin + chunk.length);
  }
  return own;
}

kernels::QueryChunks QueriesOf(const SequenceCut& cut, int64_t sequence_length, int rank) {
  kernels::QueryChunks queries;
  if (cut.num_ranks == 1) return queries;
  for (const SequenceChunk& chunk : SequenceChunks(cut, sequence_length, rank)) {
    queries.length = chunk.length;
    queries.begin[queries.num_chunks++] = chunk.begin;
  }
  return queries;
}

// Tensors of `samples`, side by side in one storage.
class Collector {
 public:
  // `bytes_per_sample`: of all tensors, of which there are at most kMaxTensors.
  Collector(int64_t samples, int64_t bytes_per_sample, Context& context)
      : samples_(samples),
        bytes_(EmptyOnHost(DType::kU8, {samples * bytes_per_sample + kMaxTensors * kAlignment},
                           "batch", context)) {}

  // [samples * positions], value(b, s) at position s of sample b.
  template <class T, class Value>
  Tensor Collect(const std::vector<int64_t>& positions, const Value& value) {
    const Tensor x(kDTypeOf<T>, {samples_ * std::ssize(positions)}, bytes_.storage(), end_);
    end_ += (x.bytes() + kAlignment - 1) / kAlignment * kAlignment;
    if (x.device().is_meta()) return x;
    T* out = x.data<T>();
    for (int64_t b = 0; b < samples_; ++b) {
      for (const int64_t s : positions) *out++ = static_cast<T>(value(b, s));
    }
    return x;
  }

 private:
  static constexpr int64_t kAlignment = 64, kMaxTensors = 8;

  const int64_t samples_;
  const Tensor bytes_;
  int64_t end_ = 0;
};

// All of its tensors.
Tensor BytesOf(const MicroBatch& batch) {
  const std::shared_ptr<Storage>& bytes = batch.tokens.storage();
  return Tensor(DType::kU8, {bytes->bytes()}, bytes);
}

int64_t NumTokens(const Tensor& document_ids) {
  if (document_ids.device().is_meta()) return -1;
  return std::ranges::count_if(document_ids.span<int32_t>(), [](int32_t id) { return id >= 0; });
}

}  // namespace

MicroBatch MakeMicroBatch(const std::vector<Sample>& samples,
                          const std::vector<int64_t>& sample_index,
                          const MicroBatchOptions& options, Context& context) {
  const int64_t B = std::ssize(samples), S = options.sequence_length;
  const MeshPosition& at = options.at;
  const SequenceCut over_context = {B, at.size_of(Axis::kContext), /*chunks_per_rank=*/2};
  const SequenceCut over_tensor = {B, at.size_of(Axis::kTensor), /*chunks_per_rank=*/1};
  for (const Sample& sample : samples) {
    CHECK(context.device().is_meta() || std::ssize(sample.tokens) == S) << sample.tokens.size();
  }

  std::vector<int64_t> all(S);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int64_t> own =
      over_context.num_ranks == 1 ? all : Select(all, over_context, at.index_on(Axis::kContext));
  const std::vector<int64_t> shard = Select(own, over_tensor, at.index_on(Axis::kTensor));

  // Five tensors of all or of the rank's positions, two of its shard's.
  const int64_t bytes_per_sample =
      S * 4 + std::ssize(own) * (4 * 4 + SizeOf(options.dtype)) + std::ssize(shard) * (4 + 8);
  Collector collector(B, bytes_per_sample, context);
  const auto int32s = [&](const std::vector<int64_t>& positions, const auto& value) {
    return collector.Collect<int32_t>(positions, value);
  };
  // One id for a whole sequence lets attention see everything before; padding stays apart.
  const auto document = [&](int64_t b, int64_t s) {
    const int32_t id = samples[b].document_ids[s];
    return options.attention_within_documents || id < 0 ? id : 0;
  };
  const auto weight = [&](int64_t b, int64_t s) { return samples[b].loss_weights[s]; };
  const Tensor sequence_ids = int32s(all, document);
  const Tensor own_ids = over_context.num_ranks == 1 ? sequence_ids : int32s(own, document);
  const Tensor shard_ids = over_tensor.num_ranks == 1 ? own_ids : int32s(shard, document);
  return {.num_sequences = B,
          .sequence_length = S,
          .over_context = over_context,
          .over_tensor = over_tensor,
          .queries = QueriesOf(over_context, S, at.index_on(Axis::kContext)),
          .tokens = int32s(own, [&](int64_t b, int64_t s) { return samples[b].tokens[s]; }),
          .labels = int32s(own, [&](int64_t b, int64_t s) { return samples[b].labels[s]; }),
          .positions = int32s(own, [&](int64_t b, int64_t s) { return samples[b].positions[s]; }),
          .document_ids = own_ids,
          .loss_weights = options.dtype == DType::kF64 ? collector.Collect<double>(own, weight)
                                                       : collector.Collect<float>(own, weight),
          .sequence_document_ids = sequence_ids,
          .shard = {.positions = std::ssize(shard),
                    .num_tokens = NumTokens(shard_ids),
                    .document_ids = shard_ids,
                    .token_index = collector.Collect<int64_t>(
                        shard, [&](int64_t b, int64_t s) { return sample_index[b] * S + s; })}};
}

MicroBatch ToDevice(const MicroBatch& batch, Context& context) {
  if (context.accelerator() == nullptr) return batch;
  const Tensor there = ToDevice(BytesOf(batch), "batch", context);
  MicroBatch moved = batch;
  for (Tensor* x :
       {&moved.tokens, &moved.labels, &moved.positions, &moved.document_ids, &moved.loss_weights,
        &moved.sequence_document_ids, &moved.shard.document_ids, &moved.shard.token_index}) {
    *x = x->In(there.storage());
  }
  return moved;
}

std::vector<MicroBatch> ToDevice(const std::vector<MicroBatch>& batches, Context& context) {
  std::vector<MicroBatch> moved;
  for (const MicroBatch& batch : batches) moved.push_back(ToDevice(batch, context));
  return moved;
}

void CopyToDevice(const MicroBatch& batch, const MicroBatch& there) {
  Copy(BytesOf(batch), BytesOf(there));
}

BatchTotals TotalsOf(const MicroBatch& batch) {
  if (batch.tokens.device().is_meta()) return {1, static_cast<double>(batch.tokens.size())};
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
  if (batch.loss_weights.device().is_meta()) return;
  if (batch.loss_weights.dtype() == DType::kF64) {
    NormalizeAs<double>(total_loss_weight, batch.loss_weights);
  } else {
    NormalizeAs<float>(total_loss_weight, batch.loss_weights);
  }
}

}  // namespace moebius
