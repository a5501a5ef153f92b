#include "train/pipeline_layout.h"

#include <algorithm>

namespace moebius {
namespace {

ScheduleKind KindOf(const ParallelConfig& config) {
  switch (config.pipeline_schedule()) {
    case ParallelConfig::GPIPE:
      return ScheduleKind::kGPipe;
    case ParallelConfig::ONE_F_ONE_B:
      return ScheduleKind::k1F1B;
    case ParallelConfig::INTERLEAVED:
      return ScheduleKind::kInterleaved1F1B;
    case ParallelConfig::ZB_H1:
      return ScheduleKind::kZeroBubbleH1;
    case ParallelConfig::ZB_V:
      return ScheduleKind::kZeroBubbleV;
  }
  CHECK(false) << "no such schedule";
}

// The first layer of each virtual stage, and behind the last one the number of layers.
std::vector<int64_t> FirstLayers(const RunConfig& config, int num_virtual_stages) {
  const std::vector<int> owner = EvenOwners(config.model().num_layers(), num_virtual_stages);
  const auto& given = config.parallel().pipeline_layers();
  std::vector<int64_t> first = {0};
  for (int v = 0; v < num_virtual_stages; ++v) {
    first.push_back(first.back() + (given.empty() ? std::ranges::count(owner, v) : given[v]));
  }
  return first;
}

}  // namespace

PipelineSpec PipelineOf(const RunConfig& config, int world_size) {
  const ParallelConfig& parallel = config.parallel();
  const int data_size =
      world_size / (parallel.tensor_size() * parallel.pipeline_size() * parallel.context_size());
  const int64_t micro_batches = config.train().global_batch_size() /
                                config.train().micro_batch_size() / std::max(data_size, 1);
  return {.schedule = KindOf(parallel),
          .num_stages = parallel.pipeline_size(),
          .num_chunks = parallel.virtual_pipeline_size(),
          .num_micro_batches = static_cast<int>(micro_batches)};
}

absl::Status CheckPipeline(const RunConfig& config, int world_size) {
  const absl::Status status = Validate(PipelineOf(config, world_size));
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("parallel.pipeline_schedule: ", status.message()));
}

std::vector<ModelChunk> ChunksOf(const RunConfig& config, const PipelineSpec& pipeline, int stage) {
  const int last = pipeline.num_virtual_stages() - 1;
  const std::vector<int64_t> first = FirstLayers(config, last + 1);
  std::vector<ModelChunk> chunks;
  for (int chunk = 0; chunk < pipeline.num_chunks; ++chunk) {
    const int v = VirtualStageOf(pipeline, {stage, chunk});
    chunks.push_back({.first_layer = first[v],
                      .end_layer = first[v + 1],
                      .embeds = v == 0,
                      .has_head = v == last});
  }
  return chunks;
}

}  // namespace moebius
