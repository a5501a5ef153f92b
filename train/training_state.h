// What a checkpoint holds of a session, by name: parameters and buffers under their own names, the
// moments of AdamW under adamw.m/<name> and adamw.v/<name>.
#pragma once

#include <vector>

#include "core/base/status.h"
#include "model/parameter_store.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/session.h"

namespace moebius {

// This rank's share of the model, or of all training state. The tensors share the session's memory;
// those that the host holds are as the device has left them.
// ModelTensors REQUIRES: no value is sharded.
std::vector<CheckpointTensor> ModelTensors(ParameterStore& store);
std::vector<CheckpointTensor> TrainingTensors(Session& session);

// Fills the model, or all training state and the step, from a checkpoint of any layout. What an
// imported model lacks (moments and buffers, in a checkpoint of step 0) keeps its start. Errors
// name file and tensor; what was read before stays read.
absl::Status RestoreModel(const CheckpointReader& checkpoint, ParameterStore& store);
absl::Status RestoreTraining(const CheckpointReader& checkpoint, Session& session);

}  // namespace moebius
