#include "train/planner/random_batches.h"

#include <numeric>

#include "core/base/random.h"

namespace moebius {
namespace {

Sample RandomSample(int64_t index, int64_t length, int64_t vocab_size) {
  const RandomStream stream(1, "random_batches");
  const auto token = [&](int64_t i) {
    return static_cast<int32_t>(stream.Below(static_cast<uint64_t>(index * (length + 1) + i),
                                             static_cast<uint64_t>(vocab_size)));
  };
  Sample sample;
  for (int64_t i = 0; i < length; ++i) {
    sample.tokens.push_back(token(i));
    sample.labels.push_back(token(i + 1));
  }
  sample.document_ids.assign(length, 0);
  sample.positions.resize(length);
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  sample.loss_weights.assign(length, 1);
  return sample;
}

}  // namespace

std::vector<MicroBatch> RandomBatches(StepEngine& engine) {
  const TrainConfig& train = engine.config().train();
  const MeshPosition& at = engine.mesh().position();
  const int64_t vocab_size = engine.model().spec().vocab_size;
  std::vector<MicroBatch> micro_batches;
  for (int64_t m = 0; m < engine.pipeline().num_micro_batches; ++m) {
    std::vector<Sample> samples;
    std::vector<int64_t> index;
    for (int64_t b = 0; b < train.micro_batch_size(); ++b) {
      const int64_t number = m * at.size_of(Axis::kData) + at.index_on(Axis::kData);
      index.push_back(number * train.micro_batch_size() + b);
      samples.push_back(RandomSample(index.back(), train.sequence_length(), vocab_size));
    }
    micro_batches.push_back(
        MakeMicroBatch(samples, index, engine.micro_batch_options(), engine.context()));
  }
  return micro_batches;
}

}  // namespace moebius
