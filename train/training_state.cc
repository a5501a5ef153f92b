#include "train/training_state.h"

#include <algorithm>

#include "core/tensor/copy.h"

namespace moebius {
namespace {

// An imported model is a checkpoint of step 0 that holds parameters alone.
bool KeepsItsStart(const CheckpointReader& checkpoint, const CheckpointTensor& tensor,
                   const ParameterStore& store) {
  if (checkpoint.step() != 0 || checkpoint.tensors().contains(tensor.name)) return false;
  return std::ranges::none_of(store.parameters(), [&](const Parameter* parameter) {
    return parameter->name == tensor.name;
  });
}

absl::Status ReadAll(const CheckpointReader& checkpoint, const ParameterStore& store,
                     const std::vector<CheckpointTensor>& tensors) {
  for (const CheckpointTensor& tensor : tensors) {
    if (KeepsItsStart(checkpoint, tensor, store)) continue;
    CheckpointTensor here = tensor;
    here.local = HostSide(tensor.local, store.context());
    RETURN_IF_ERROR(checkpoint.Read(here));
    Copy(here.local, tensor.local);
    store.context().Wait();  // so that the host needs room for one at a time
  }
  return absl::OkStatus();
}

std::vector<CheckpointTensor> ParameterTensors(const ParameterStore& store) {
  std::vector<CheckpointTensor> tensors;
  for (const Parameter* parameter : store.parameters()) {
    tensors.push_back(
        PlacedTensor(parameter->name, parameter->placement, store.position(), parameter->value));
  }
  return tensors;
}

// Every rank of a pipeline stage has its layers' buffers; the first one saves them.
void AddBuffers(const ParameterStore& store, std::vector<CheckpointTensor>* tensors) {
  const MeshPosition& at = store.position();
  int rank_of_stage = 0;
  for (const Axis axis : {Axis::kData, Axis::kContext, Axis::kTensor}) {
    rank_of_stage = rank_of_stage * at.size_of(axis) + at.index_on(axis);
  }
  for (const Buffer* buffer : store.buffers()) {
    tensors->push_back(ReplicatedTensor(buffer->name, buffer->value, rank_of_stage));
  }
}

// The images of the old values are stale.
void RaiseVersions(ParameterStore& store) {
  for (Parameter* parameter : store.parameters()) ++parameter->version;
}

}  // namespace

std::vector<CheckpointTensor> ModelTensors(ParameterStore& store) {
  std::vector<CheckpointTensor> tensors = ParameterTensors(store);
  AddBuffers(store, &tensors);
  return tensors;
}

std::vector<CheckpointTensor> TrainingTensors(Session& session) {
  const ParameterStore& store = session.model().store();
  store.context().Wait();  // moments may be on their way to the host
  const bool sharded = session.values().are_sharded();
  std::vector<CheckpointTensor> tensors;
  if (!sharded) tensors = ParameterTensors(store);
  AddBuffers(store, &tensors);
  for (const AdamW::State& state : session.optimizer().states()) {
    const Parameter& parameter = *state.parameter;
    const auto add = [&](const char* prefix, const Tensor& part) {
      tensors.push_back(PartTensor(prefix + parameter.name, parameter.placement, store.position(),
                                   state.begin, state.end, part, state.first_replica));
    };
    if (sharded) add("", state.value);
    add("adamw.m/", state.m);
    add("adamw.v/", state.v);
  }
  return tensors;
}

absl::Status RestoreModel(const CheckpointReader& checkpoint, ParameterStore& store) {
  RETURN_IF_ERROR(ReadAll(checkpoint, store, ModelTensors(store)));
  RaiseVersions(store);
  return absl::OkStatus();
}

absl::Status RestoreTraining(const CheckpointReader& checkpoint, Session& session) {
  ParameterStore& store = session.model().store();
  RETURN_IF_ERROR(ReadAll(checkpoint, store, TrainingTensors(session)));
  RaiseVersions(store);
  session.set_steps_done(checkpoint.step());
  return absl::OkStatus();
}

}  // namespace moebius
