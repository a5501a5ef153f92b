#include "train/pipeline_layout.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/testing/tiny_session.h"

namespace moebius {
namespace {

// Seven layers, 16 sequences a step in micro-batches of 2.
RunConfig Config(std::vector<std::string> overrides) {
  overrides.insert(overrides.end(), {"model.num_layers=7", "train.global_batch_size=16",
                                     "train.micro_batch_size=2"});
  return TinyConfig(overrides);
}

// Of one stage: first and end layer of each chunk.
std::vector<std::pair<int64_t, int64_t>> LayersOf(const RunConfig& config, int stage) {
  std::vector<std::pair<int64_t, int64_t>> layers;
  for (const ModelChunk& chunk : ChunksOf(config, PipelineOf(config, 4), stage)) {
    layers.emplace_back(chunk.first_layer, chunk.end_layer);
  }
  return layers;
}

TEST(PipelineLayout, CountsTheMicroBatchesOfARank) {
  const RunConfig config = Config({"parallel.pipeline_size=2", "parallel.tensor_size=2"});
  EXPECT_EQ(PipelineOf(config, 4).num_micro_batches, 8);
  EXPECT_EQ(PipelineOf(config, 16).num_micro_batches, 2);
  EXPECT_EQ(PipelineOf(Config({}), 1).num_stages, 1);
}

using Layers = std::vector<std::pair<int64_t, int64_t>>;

TEST(PipelineLayout, LayersAreDealtEvenly) {
  const RunConfig plain = Config({"parallel.pipeline_size=4"});
  EXPECT_EQ(LayersOf(plain, 0), (Layers{{0, 2}}));
  EXPECT_EQ(LayersOf(plain, 3), (Layers{{6, 7}}));
  const RunConfig interleaved =
      Config({"parallel.pipeline_size=2", "parallel.pipeline_schedule=INTERLEAVED",
              "parallel.virtual_pipeline_size=2"});
  EXPECT_EQ(LayersOf(interleaved, 0), (Layers{{0, 2}, {4, 6}}));
  EXPECT_EQ(LayersOf(interleaved, 1), (Layers{{2, 4}, {6, 7}}));
  const RunConfig in_a_v = Config({"parallel.pipeline_size=2", "parallel.pipeline_schedule=ZB_V",
                                   "parallel.virtual_pipeline_size=2"});
  EXPECT_EQ(LayersOf(in_a_v, 0), (Layers{{0, 2}, {6, 7}}));
  EXPECT_EQ(LayersOf(in_a_v, 1), (Layers{{2, 4}, {4, 6}}));
}

TEST(PipelineLayout, LayersAreDealtAsSaid) {
  const RunConfig config =
      Config({"parallel.pipeline_size=3", "parallel.pipeline_layers=[1, 5, 1]"});
  EXPECT_EQ(LayersOf(config, 0), (Layers{{0, 1}}));
  EXPECT_EQ(LayersOf(config, 1), (Layers{{1, 6}}));
  EXPECT_EQ(LayersOf(config, 2), (Layers{{6, 7}}));
}

TEST(PipelineLayout, TheFirstChunkEmbedsAndTheLastHasTheHead) {
  const RunConfig config = Config({"parallel.pipeline_size=2"});
  const PipelineSpec pipeline = PipelineOf(config, 2);
  const ModelChunk first = ChunksOf(config, pipeline, 0)[0];
  const ModelChunk last = ChunksOf(config, pipeline, 1)[0];
  EXPECT_TRUE(first.embeds && !first.has_head);
  EXPECT_TRUE(!last.embeds && last.has_head);
}

TEST(PipelineLayout, RefusesWhatTheScheduleDoesNotAllow) {
  EXPECT_TRUE(CheckPipeline(Config({"parallel.pipeline_size=4"}), 4).ok());
  const absl::Status few =
      CheckPipeline(Config({"parallel.pipeline_size=2", "parallel.pipeline_schedule=ZB_H1"}), 16);
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(few.message().find("parallel.pipeline_schedule: "), 0u) << few;
  EXPECT_FALSE(
      CheckPipeline(Config({"parallel.pipeline_size=2", "parallel.pipeline_schedule=ZB_V"}), 2)
          .ok());
}

}  // namespace
}  // namespace moebius
