// Between checkpoints of Moebius and model directories of Hugging Face.
#pragma once

#include <string>

#include "core/base/status.h"
#include "core/tensor/dtype.h"
#include "train/hugging_face/layout.h"

namespace moebius {

// Writes the model of the checkpoint `from` into the directory `to`, which is made if missing.
// `dtype` is kF32 or kBF16. Verifies what it reads; FailedPrecondition, before anything is written,
// if the layout cannot express the model.
absl::Status ExportCheckpoint(const std::string& from, const std::string& to,
                              HuggingFaceLayout layout, DType dtype);

// Writes the model directory `from` as the checkpoint `to`, which must not exist: step 0, the
// parameters in F32, no optimizer state; its config.textproto has the model, and the longest
// sequence that config.json allows as train.sequence_length.
absl::Status ImportCheckpoint(const std::string& from, const std::string& to);

}  // namespace moebius
