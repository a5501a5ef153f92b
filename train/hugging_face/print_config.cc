#include <nlohmann/json.hpp>

#include "configs/validate.h"
#include "core/base/check.h"
#include "train/hugging_face/config_json.h"

namespace moebius {
namespace {

using nlohmann::json;

bool HasDenseLayer(const ModelConfig& model) {
  for (int layer = 0; layer < model.num_layers(); ++layer) {
    if (!IsMoeLayer(model, layer)) return true;
  }
  return false;
}

ModelConfig::QkNorm QkNormOf(HuggingFaceLayout layout) {
  switch (layout) {
    case HuggingFaceLayout::kQwen3Moe:
      return ModelConfig::PER_HEAD;
    case HuggingFaceLayout::kOlmoe:
      return ModelConfig::WHOLE;
    case HuggingFaceLayout::kMixtral:
      return ModelConfig::NONE;
  }
  return ModelConfig::NONE;
}

const char* ArchitectureOf(HuggingFaceLayout layout) {
  switch (layout) {
    case HuggingFaceLayout::kQwen3Moe:
      return "Qwen3MoeForCausalLM";
    case HuggingFaceLayout::kOlmoe:
      return "OlmoeForCausalLM";
    case HuggingFaceLayout::kMixtral:
      return "MixtralForCausalLM";
  }
  return "";
}

}  // namespace

absl::Status CheckExpressible(const ModelConfig& model, HuggingFaceLayout layout) {
  const MoeConfig& moe = model.moe();
  const bool is_qwen = layout == HuggingFaceLayout::kQwen3Moe;
  const struct {
    bool broken;
    std::string what;
  } rules[] = {
      {moe.num_experts() == 0, "a model without experts (model.moe.num_experts is 0)"},
      {moe.num_shared_experts() > 0,
       absl::StrCat("shared experts (model.moe.num_shared_experts is ", moe.num_shared_experts(),
                    ")")},
      {moe.router().score() != RouterConfig::SOFTMAX,
       "router scores other than a softmax (model.moe.router.score is SIGMOID)"},
      {moe.router().scale() != 1,
       absl::StrCat("a factor on the router's weights (model.moe.router.scale is ",
                    moe.router().scale(), ")")},
      {layout == HuggingFaceLayout::kMixtral && !moe.router().renormalize(),
       "router weights without renormalisation (model.moe.router.renormalize is false)"},
      {moe.balance().bias_update_rate() > 0,
       "a bias in the router's choice (model.moe.balance.bias_update_rate is above 0)"},
      {moe.debug_routing() != MoeConfig::NONE,
       "routing that overrules the router (model.moe.debug_routing is set)"},
      {!is_qwen && HasDenseLayer(model),
       "layers without experts (model.moe.layers leaves some dense)"},
      {model.qk_norm() != QkNormOf(layout),
       absl::StrCat("model.qk_norm: ", ModelConfig::QkNorm_Name(model.qk_norm()), ", only ",
                    ModelConfig::QkNorm_Name(QkNormOf(layout)))},
      {layout == HuggingFaceLayout::kOlmoe &&
           model.head_dim() * model.num_heads() != model.hidden_size(),
       "a model.head_dim other than hidden_size / num_heads"},
  };
  for (const auto& rule : rules) {
    if (rule.broken) {
      return absl::FailedPreconditionError(
          absl::StrCat("the layout ", NameOf(layout), " cannot express ", rule.what));
    }
  }
  return absl::OkStatus();
}

std::string PrintHuggingFaceConfig(const ModelConfig& model, HuggingFaceLayout layout, DType dtype,
                                   int64_t max_position_embeddings) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  const MoeConfig& moe = model.moe();
  json config = {
      {"architectures", {ArchitectureOf(layout)}},
      {"model_type", NameOf(layout)},
      {"torch_dtype", dtype == DType::kF32 ? "float32" : "bfloat16"},
      {"vocab_size", model.vocab_size()},
      {"hidden_size", model.hidden_size()},
      {"num_hidden_layers", model.num_layers()},
      {"num_attention_heads", model.num_heads()},
      {"num_key_value_heads", model.num_kv_heads()},
      {"hidden_act", "silu"},
      {"max_position_embeddings", max_position_embeddings},
      {"initializer_range", model.init_std()},
      {"rms_norm_eps", model.norm_epsilon()},
      {"rope_theta", model.rope_theta()},
      {"tie_word_embeddings", model.tie_embeddings()},
      {"attention_dropout", 0.0},
      {"num_experts_per_tok", moe.top_k()},
      {"pad_token_id", nullptr},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
  };
  if (layout != HuggingFaceLayout::kOlmoe) config["head_dim"] = model.head_dim();
  if (layout == HuggingFaceLayout::kMixtral) {
    config["num_local_experts"] = moe.num_experts();
    config["intermediate_size"] = moe.expert_hidden_size();
    config["sliding_window"] = nullptr;
    return config.dump(2) + "\n";
  }
  config["attention_bias"] = false;
  config["num_experts"] = moe.num_experts();
  config["norm_topk_prob"] = moe.router().renormalize();
  config["intermediate_size"] = moe.expert_hidden_size();
  if (layout == HuggingFaceLayout::kQwen3Moe) {
    config["moe_intermediate_size"] = moe.expert_hidden_size();
    config["decoder_sparse_step"] = 1;
    config["use_sliding_window"] = false;
    config["mlp_only_layers"] = json::array();
    for (int layer = 0; layer < model.num_layers(); ++layer) {
      if (!IsMoeLayer(model, layer)) config["mlp_only_layers"].push_back(layer);
    }
    if (HasDenseLayer(model)) config["intermediate_size"] = model.ffn_hidden_size();
  }
  return config.dump(2) + "\n";
}

}  // namespace moebius
