// Micro-batches to measure with: tokens drawn at random, all in one document.
#pragma once

#include <vector>

#include "train/step_engine.h"

namespace moebius {

// Those of one step of this rank; on every rank of a world other ones.
std::vector<MicroBatch> RandomBatches(StepEngine& engine);

}  // namespace moebius
