// The config that a checkpoint was trained with.
#pragma once

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "train/checkpoint/checkpoint_reader.h"

namespace moebius {

// As it stands in the checkpoint, with the size of the vocabulary filled in. That of an imported
// model has a model and a sequence length alone, so no rule about the rest is looked at.
absl::StatusOr<RunConfig> ReadCheckpointConfig(const CheckpointReader& checkpoint);

}  // namespace moebius
