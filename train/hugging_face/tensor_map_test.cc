#include "train/hugging_face/tensor_map.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "core/base/files.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/config_json.h"

namespace moebius {
namespace {

using Shapes = std::map<std::string, std::string>;

std::string Fixture(const std::string& path) { return "tests/golden/fixtures/" + path; }

std::vector<HuggingFaceTensor> MapOf(const std::string& fixture) {
  const auto config = ParseHuggingFaceConfig(fixture, *ReadFile(Fixture(fixture + "/config.json")));
  return MapHuggingFaceTensors(config->model, config->layout);
}

class TensorMapTest : public testing::TestWithParam<const char*> {};

TEST_P(TensorMapTest, HasTheTensorsThatTransformersWrote) {
  Shapes mapped, written;
  for (const HuggingFaceTensor& tensor : MapOf(GetParam())) {
    EXPECT_TRUE(mapped.emplace(tensor.name, tensor.shape.ToString()).second)
        << tensor.name << " stands twice";
  }
  const auto file = SafetensorsFile::Open(Fixture(std::string(GetParam()) + "/model.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  for (const auto& [name, entry] : file->entries()) written[name] = entry.shape.ToString();
  EXPECT_EQ(mapped, written);
}

TEST_P(TensorMapTest, FillsEachParameterFromOneTensorOrAllExpertsInOrder) {
  std::map<std::string, int64_t> next_expert;
  for (const HuggingFaceTensor& tensor : MapOf(GetParam())) {
    if (tensor.expert < 0) {
      EXPECT_TRUE(next_expert.emplace(tensor.parameter, -1).second) << tensor.parameter;
    } else {
      EXPECT_EQ(tensor.expert, next_expert[tensor.parameter]++) << tensor.parameter;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TensorMapTest,
                         testing::Values("qwen3_moe", "qwen3_moe_tied", "olmoe", "mixtral"));

std::string ParameterOf(const std::string& fixture, const std::string& name) {
  for (const HuggingFaceTensor& tensor : MapOf(fixture)) {
    if (tensor.name == name) return tensor.parameter;
  }
  return "";
}

TEST(TensorMapNamesTest, KnowsGateUpAndDownUnderBothNames) {
  EXPECT_EQ(ParameterOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w1.weight"),
            "layers.1.moe.experts.gate.weight");
  EXPECT_EQ(ParameterOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w3.weight"),
            "layers.1.moe.experts.up.weight");
  EXPECT_EQ(ParameterOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight"),
            "layers.1.moe.experts.down.weight");
  EXPECT_EQ(ParameterOf("olmoe", "model.layers.0.mlp.experts.6.gate_proj.weight"),
            "layers.0.moe.experts.gate.weight");
  EXPECT_EQ(ParameterOf("qwen3_moe", "model.layers.1.mlp.gate_proj.weight"),
            "layers.1.ffn.gate.weight");
  EXPECT_EQ(ParameterOf("qwen3_moe", "model.layers.2.mlp.gate.weight"),
            "layers.2.moe.router.weight");
  EXPECT_EQ(ParameterOf("qwen3_moe", "model.layers.1.post_attention_layernorm.weight"),
            "layers.1.ffn_norm.weight");
}

}  // namespace
}  // namespace moebius
