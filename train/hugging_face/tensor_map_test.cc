#include "train/hugging_face/tensor_map.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/files.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/config_json.h"

namespace moebius {
namespace {

using Shapes = std::map<std::string, std::string>;

std::string Fixture(const std::string& path) { return "tests/golden/fixtures/" + path; }

std::vector<MappedParameter> MapOf(const std::string& fixture) {
  const auto config = ParseHuggingFaceConfig(fixture, *ReadFile(Fixture(fixture + "/config.json")));
  return MapParameters(config->model, config->layout);
}

class TensorMapTest : public testing::TestWithParam<const char*> {};

TEST_P(TensorMapTest, HasTheTensorsThatTransformersWrote) {
  Shapes mapped, written;
  for (const MappedParameter& parameter : MapOf(GetParam())) {
    for (const HuggingFaceTensor& tensor : parameter.tensors) {
      EXPECT_TRUE(mapped.emplace(tensor.name, tensor.shape.ToString()).second)
          << tensor.name << " stands twice";
    }
  }
  const auto file = SafetensorsFile::Open(Fixture(std::string(GetParam()) + "/model.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  for (const auto& [name, entry] : file->entries()) written[name] = entry.shape.ToString();
  EXPECT_EQ(mapped, written);
}

TEST_P(TensorMapTest, FillsEachParameterWhole) {
  std::set<std::string> names;
  for (const MappedParameter& parameter : MapOf(GetParam())) {
    EXPECT_TRUE(names.insert(parameter.name).second) << parameter.name << " stands twice";
    int64_t num_elements = 0;
    for (const HuggingFaceTensor& tensor : parameter.tensors) {
      num_elements += tensor.shape.num_elements();
    }
    EXPECT_EQ(num_elements, parameter.shape.num_elements()) << parameter.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TensorMapTest,
                         testing::Values("qwen3_moe", "qwen3_moe_tied", "olmoe", "mixtral"));

// Where a tensor goes: "parameter" or "parameter[index]".
std::string PlaceOf(const std::string& fixture, const std::string& name) {
  for (const MappedParameter& parameter : MapOf(fixture)) {
    for (size_t i = 0; i < parameter.tensors.size(); ++i) {
      if (parameter.tensors[i].name != name) continue;
      return parameter.tensors.size() == 1 ? parameter.name
                                           : absl::StrCat(parameter.name, "[", i, "]");
    }
  }
  return "";
}

TEST(TensorMapNamesTest, KnowsGateUpAndDownUnderBothNames) {
  EXPECT_EQ(PlaceOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w1.weight"),
            "layers.1.moe.experts.gate.weight[3]");
  EXPECT_EQ(PlaceOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w3.weight"),
            "layers.1.moe.experts.up.weight[3]");
  EXPECT_EQ(PlaceOf("mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight"),
            "layers.1.moe.experts.down.weight[3]");
  EXPECT_EQ(PlaceOf("olmoe", "model.layers.0.mlp.experts.6.gate_proj.weight"),
            "layers.0.moe.experts.gate.weight[6]");
  EXPECT_EQ(PlaceOf("qwen3_moe", "model.layers.1.mlp.gate_proj.weight"),
            "layers.1.ffn.gate.weight");
  EXPECT_EQ(PlaceOf("qwen3_moe", "model.layers.2.mlp.gate.weight"), "layers.2.moe.router.weight");
  EXPECT_EQ(PlaceOf("qwen3_moe", "model.layers.1.post_attention_layernorm.weight"),
            "layers.1.ffn_norm.weight");
}

}  // namespace
}  // namespace moebius
