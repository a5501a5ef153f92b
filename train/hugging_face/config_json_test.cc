#include "train/hugging_face/config_json.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/files.h"

namespace moebius {
namespace {

using google::protobuf::util::MessageDifferencer;
using nlohmann::json;
using enum HuggingFaceLayout;

std::string Fixture(const std::string& name) {
  return *ReadFile("tests/golden/fixtures/" + name + "/config.json");
}

ModelConfig Model(const std::string& text) {
  ModelConfig model;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &model));
  return model;
}

HuggingFaceConfig Parsed(const std::string& text) {
  auto config = ParseHuggingFaceConfig("config.json", text);
  CHECK(config.ok()) << config.status().ToString();
  return *config;
}

// The error of the fixture's config with one key changed.
std::string ErrorWith(const std::string& fixture, const std::string& key, const json& value) {
  json object = json::parse(Fixture(fixture));
  object[key] = value;
  return std::string(ParseHuggingFaceConfig("config.json", object.dump()).status().message());
}

constexpr char kQwen[] = R"(
    num_layers: 3 hidden_size: 24 num_heads: 4 num_kv_heads: 2 head_dim: 8 vocab_size: 80
    ffn_hidden_size: 36 tie_embeddings: false rope_theta: 5000 norm_epsilon: 1e-5 qk_norm: PER_HEAD
    moe { num_experts: 6 top_k: 2 expert_hidden_size: 16 layers: [0, 2] router { renormalize: true } }
)";
constexpr char kQwenTied[] = R"(
    num_layers: 2 hidden_size: 24 num_heads: 4 num_kv_heads: 2 head_dim: 10 vocab_size: 72
    ffn_hidden_size: 28 tie_embeddings: true rope_theta: 700 norm_epsilon: 1e-4 qk_norm: PER_HEAD
    moe { num_experts: 5 top_k: 3 expert_hidden_size: 20 layers: 1 router { renormalize: false } }
)";
constexpr char kOlmoeModel[] = R"(
    num_layers: 2 hidden_size: 24 num_heads: 4 num_kv_heads: 2 head_dim: 6 vocab_size: 88
    tie_embeddings: false rope_theta: 3000 norm_epsilon: 1e-4 qk_norm: WHOLE
    moe { num_experts: 7 top_k: 3 expert_hidden_size: 16 router { renormalize: true } }
)";
constexpr char kMixtralModel[] = R"(
    num_layers: 2 hidden_size: 24 num_heads: 4 num_kv_heads: 2 head_dim: 10 vocab_size: 76
    tie_embeddings: false rope_theta: 2000 norm_epsilon: 1e-4 qk_norm: NONE
    moe { num_experts: 5 top_k: 3 expert_hidden_size: 20 router { renormalize: true } }
)";

struct Case {
  const char* fixture;
  HuggingFaceLayout layout;
  const char* model;
};
constexpr Case kCases[] = {{"qwen3_moe", kQwen3Moe, kQwen},
                           {"qwen3_moe_tied", kQwen3Moe, kQwenTied},
                           {"olmoe", kOlmoe, kOlmoeModel},
                           {"mixtral", kMixtral, kMixtralModel}};

TEST(ConfigJsonTest, ReadsWhatTransformersWrote) {
  for (const Case& c : kCases) {
    const HuggingFaceConfig config = Parsed(Fixture(c.fixture));
    EXPECT_EQ(config.layout, c.layout);
    EXPECT_TRUE(MessageDifferencer::Equals(config.model, Model(c.model)))
        << c.fixture << "\n"
        << config.model.DebugString();
  }
}

TEST(ConfigJsonTest, ReadsWhatItPrints) {
  for (const Case& c : kCases) {
    const ModelConfig model = Model(c.model);
    ASSERT_TRUE(CheckExpressible(model, c.layout).ok());
    const std::string text = PrintHuggingFaceConfig(model, c.layout, DType::kBF16, 64);
    EXPECT_TRUE(MessageDifferencer::Equals(Parsed(text).model, model)) << text;
    EXPECT_EQ(json::parse(text).at("torch_dtype"), "bfloat16");
  }
}

TEST(ConfigJsonTest, TakesRotaryBaseAndExpertCountUnderTheirOlderNames) {
  json object = json::parse(Fixture("qwen3_moe"));
  object.erase("rope_parameters");
  object.erase("num_local_experts");
  object["rope_theta"] = 5000;
  object["rope_scaling"] = nullptr;
  object["num_experts"] = 6;
  EXPECT_TRUE(MessageDifferencer::Equals(Parsed(object.dump()).model, Model(kQwen)));
}

TEST(ConfigJsonTest, FillsInTheDefaultsOfEachLayout) {
  json object = json::parse(Fixture("mixtral"));
  for (const char* key : {"rope_parameters", "head_dim", "rms_norm_eps"}) object.erase(key);
  const ModelConfig model = Parsed(object.dump()).model;
  EXPECT_EQ(model.rope_theta(), 1e6);
  EXPECT_EQ(model.head_dim(), 6);
  EXPECT_EQ(model.norm_epsilon(), 1e-5);
}

TEST(ConfigJsonTest, RefusesWhatWouldChangeTheNumbers) {
  EXPECT_EQ(ErrorWith("qwen3_moe", "attention_bias", true),
            "config.json: attention_bias: is true, but Moebius computes only what false means");
  EXPECT_NE(ErrorWith("olmoe", "clip_qkv", 8.0), "");
  EXPECT_NE(ErrorWith("mixtral", "router_jitter_noise", 0.1), "");
  EXPECT_NE(ErrorWith("mixtral", "sliding_window", 4096), "");
  EXPECT_NE(ErrorWith("qwen3_moe", "use_sliding_window", true), "");
  EXPECT_NE(ErrorWith("qwen3_moe", "hidden_act", "gelu"), "");
  EXPECT_NE(ErrorWith("qwen3_moe", "attention_dropout", 0.1), "");
  EXPECT_NE(ErrorWith("qwen3_moe", "quantization_config", {{"bits", 4}}), "");
  EXPECT_NE(ErrorWith("qwen3_moe", "rope_scaling", {{"type", "yarn"}, {"factor", 4}}), "");
  EXPECT_EQ(ErrorWith("qwen3_moe", "rope_parameters", {{"rope_theta", 1e4}, {"factor", 4}}),
            "config.json: rope_parameters.factor: is 4, but Moebius computes only the unscaled "
            "rotary embedding");
  // Qwen3-MoE keeps a window's width even when none is used.
  EXPECT_EQ(ErrorWith("qwen3_moe", "sliding_window", 4096), "");
}

TEST(ConfigJsonTest, NamesWhatIsMissingOrWrong) {
  EXPECT_EQ(ErrorWith("olmoe", "hidden_size", nullptr), "config.json: hidden_size: missing");
  EXPECT_EQ(ErrorWith("olmoe", "hidden_size", "24"),
            "config.json: hidden_size: is \"24\", must be an integer of at least 1");
  EXPECT_EQ(ErrorWith("olmoe", "num_experts", 0),
            "config.json: num_experts: is 0, must be an integer of at least 1");
  EXPECT_EQ(ErrorWith("olmoe", "num_experts_per_tok", 8),
            "config.json: num_experts_per_tok: is 8, more than the 7 experts");
  EXPECT_EQ(ErrorWith("olmoe", "num_key_value_heads", 3),
            "config.json: num_key_value_heads: is 3, must divide the 4 attention heads");
  EXPECT_EQ(ErrorWith("mixtral", "head_dim", 5), "config.json: head_dim: is 5, must be even");
  EXPECT_EQ(ErrorWith("olmoe", "model_type", "llama"),
            "config.json: model_type: \"llama\" is no known Hugging Face layout: qwen3_moe, olmoe "
            "and mixtral are");
  EXPECT_EQ(ErrorWith("qwen3_moe", "mlp_only_layers", {0, 1, 2}),
            "config.json: mlp_only_layers: leaves no layer with experts");
  EXPECT_EQ(ParseHuggingFaceConfig("config.json", "{").status().message(),
            "config.json: is not a JSON object");
}

TEST(ConfigJsonTest, SaysWhatALayoutCannotExpress) {
  const auto error = [](const char* base, HuggingFaceLayout layout, const std::string& change) {
    ModelConfig model = Model(base);
    model.MergeFrom(Model(change));
    return std::string(CheckExpressible(model, layout).message());
  };
  EXPECT_EQ(error(kQwen, kQwen3Moe, "moe { num_shared_experts: 1 }"),
            "the layout qwen3_moe cannot express shared experts (model.moe.num_shared_experts is "
            "1)");
  EXPECT_NE(error(kQwen, kQwen3Moe, "moe { num_experts: 0 }"), "");
  EXPECT_NE(error(kQwen, kQwen3Moe, "moe { router { score: SIGMOID } }"), "");
  EXPECT_NE(error(kQwen, kQwen3Moe, "moe { router { scale: 2.5 } }"), "");
  EXPECT_NE(error(kQwen, kQwen3Moe, "moe { balance { bias_update_rate: 0.001 } }"), "");
  EXPECT_NE(error(kQwen, kQwen3Moe, "moe { debug_routing: RANDOM }"), "");
  EXPECT_EQ(error(kQwen, kQwen3Moe, "qk_norm: WHOLE"),
            "the layout qwen3_moe cannot express model.qk_norm: WHOLE, only PER_HEAD");
  EXPECT_EQ(error(kOlmoeModel, kOlmoe, "moe { layers: 1 }"),
            "the layout olmoe cannot express layers without experts (model.moe.layers leaves some "
            "dense)");
  EXPECT_NE(error(kOlmoeModel, kOlmoe, "head_dim: 8"), "");
  EXPECT_NE(error(kMixtralModel, kMixtral, "moe { router { renormalize: false } }"), "");
  EXPECT_NE(error(kMixtralModel, kOlmoe, ""), "");
}

}  // namespace
}  // namespace moebius
