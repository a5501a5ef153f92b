#include "train/step_replayer.h"

#include <bit>
#include <utility>

#include "kernels/weight_images.h"
#include "train/batch_loader.h"

namespace moebius {
namespace {

// All that the host says by value and that may change from step to step. The tensors of a
// micro-batch stand where these numbers say (MakeMicroBatch), and one rank cuts no sequence.
std::vector<int64_t> KeyOf(const std::vector<MicroBatch>& micro_batches, const StepInputs& step) {
  std::vector<int64_t> key = {std::bit_cast<int64_t>(step.num_tokens), step.micro_batches_per_rank};
  for (const MicroBatch& batch : micro_batches) {
    const Tensor& weights = batch.loss_weights;
    key.insert(key.end(), {batch.num_sequences, batch.sequence_length, batch.shard.positions,
                           batch.shard.num_tokens, static_cast<int64_t>(weights.dtype()),
                           weights.storage()->bytes()});
  }
  return key;
}

// Where everything stands that outlives a step.
std::vector<const void*> PlacesOf(ParameterStore& store) {
  std::vector<const void*> places;
  for (const Parameter* parameter : store.parameters()) {
    places.insert(places.end(), {parameter->value.address(), parameter->gradient.address()});
    for (const auto& [key, image] : parameter->images) places.push_back(image.tensor.address());
  }
  for (const Buffer* buffer : store.buffers()) places.push_back(buffer->value.address());
  return places;
}

// Calls fn(version) for each parameter and each of its images.
template <class Fn>
void ForVersions(ParameterStore& store, const Fn& fn) {
  for (Parameter* parameter : store.parameters()) {
    fn(parameter->version);
    for (auto& [key, image] : parameter->images) fn(image.version);
  }
}

std::vector<int64_t> VersionsOf(ParameterStore& store) {
  std::vector<int64_t> versions;
  ForVersions(store, [&](int64_t version) { versions.push_back(version); });
  return versions;
}

}  // namespace

struct StepReplayer::Recording {
  std::vector<int64_t> key;
  std::vector<const void*> places;  // before the step and behind it; none: these differ
  std::vector<int64_t> version_changes = {};
  std::vector<MicroBatch> micro_batches;  // of the device
  Tensor result = {};
  Arena::Trace memory = {};
  std::unique_ptr<RecordedWork> work = nullptr;
};

StepReplayer::StepReplayer(Transformer& model, Context& context)
    : model_(model), context_(context) {}
StepReplayer::~StepReplayer() = default;

Tensor StepReplayer::Run(const std::vector<MicroBatch>& micro_batches, const StepInputs& step,
                         const Compute& compute) {
  std::vector<int64_t> key = KeyOf(micro_batches, step);
  const bool is_like_the_last = key == key_;
  key_ = std::move(key);
  if (recording_ != nullptr && !IsIntact(*recording_)) recording_.reset();
  if (recording_ != nullptr && recording_->key == key_) return Replay(micro_batches);
  return is_like_the_last ? Record(micro_batches, compute)
                          : compute(ToDevice(micro_batches, context_));
}

bool StepReplayer::IsIntact(const Recording& recording) const {
  return recording.places == PlacesOf(model_.store()) && context_.arena().IsFree(recording.memory);
}

Tensor StepReplayer::Record(const std::vector<MicroBatch>& micro_batches, const Compute& compute) {
  recording_.reset();
  ParameterStore& store = model_.store();
  kernels::RefreshImages(store.parameters(), context_);
  Recording recording = {
      .key = key_, .places = PlacesOf(store), .micro_batches = ToDevice(micro_batches, context_)};
  const std::vector<int64_t> versions = VersionsOf(store);
  Accelerator& accelerator = *context_.accelerator();
  context_.arena().BeginTrace();
  accelerator.BeginRecording();
  recording.result = compute(recording.micro_batches);
  recording.work = accelerator.EndRecording();
  recording.memory = context_.arena().EndTrace();
  accelerator.Give(*recording.work);
  if (PlacesOf(store) == recording.places) {
    recording.version_changes = VersionsOf(store);
    for (size_t i = 0; i < versions.size(); ++i) recording.version_changes[i] -= versions[i];
  } else {
    recording.places.clear();
  }
  recording_ = std::make_unique<Recording>(std::move(recording));
  return recording_->result;
}

Tensor StepReplayer::Replay(const std::vector<MicroBatch>& micro_batches) {
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    CopyToDevice(micro_batches[m], recording_->micro_batches[m]);
  }
  ParameterStore& store = model_.store();
  kernels::RefreshImages(store.parameters(), context_);
  context_.accelerator()->Give(*recording_->work);
  auto change = recording_->version_changes.begin();
  ForVersions(store, [&](int64_t& version) { version += *change++; });
  return recording_->result;
}

}  // namespace moebius
