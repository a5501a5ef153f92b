// From the config to the pipeline: its schedule, and which layers each stage has.
#pragma once

#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "model/transformer.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

// For a step of this config on `world_size` ranks. REQUIRES: ValidateLayout is OK.
PipelineSpec PipelineOf(const RunConfig& config, int world_size);

// InvalidArgument, naming the field: what the schedule does not allow.
absl::Status CheckPipeline(const RunConfig& config, int world_size);

// The chunks of a stage. Layers are dealt to virtual stages as parallel.pipeline_layers says, or as
// evenly as can be, the first ones having one more.
std::vector<ModelChunk> ChunksOf(const RunConfig& config, const PipelineSpec& pipeline, int stage);

}  // namespace moebius
