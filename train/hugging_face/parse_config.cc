#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "train/hugging_face/config_json.h"

namespace moebius {
namespace {

using nlohmann::json;

constexpr int64_t kLargest = int64_t{1} << 31;

// The keys of one config.json. After the first error, which is kept, values are meaningless.
class Keys {
 public:
  Keys(const std::string& file, const json& object) : file_(file), object_(object) {}

  const absl::Status& status() const { return status_; }

  void Fail(const std::string& key, const std::string& problem) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", key, ": ", problem));
    }
  }

  // The value of `key`; null if it is absent.
  const json& At(const std::string& key) const {
    static const json null;
    const auto it = object_.find(key);
    return it == object_.end() ? null : *it;
  }

  int64_t Int(const std::string& key) {
    if (At(key).is_null()) Fail(key, "missing");
    return IntOr(key, 1);
  }
  int64_t IntOr(const std::string& key, int64_t otherwise) {
    const json& value = At(key);
    if (value.is_null()) return otherwise;
    if (value.is_number_integer() && value >= 1 && value <= kLargest) return value;
    Fail(key, absl::StrCat("is ", value.dump(), ", must be an integer of at least 1"));
    return 1;
  }
  double PositiveOr(const std::string& key, const json& value, double otherwise) {
    if (value.is_null()) return otherwise;
    if (value.is_number() && value > 0) return value;
    Fail(key, absl::StrCat("is ", value.dump(), ", must be a number above 0"));
    return 1;
  }
  bool BoolOr(const std::string& key, bool otherwise) {
    const json& value = At(key);
    if (value.is_null()) return otherwise;
    if (value.is_boolean()) return value;
    Fail(key, absl::StrCat("is ", value.dump(), ", must be true or false"));
    return false;
  }

  // Refuses every value of `key` but absence, null and `neutral`.
  void Only(const std::string& key, const json& neutral) {
    const json& value = At(key);
    if (value.is_null() || value == neutral) return;
    Fail(key, absl::StrCat("is ", value.dump(), ", but Moebius computes only what ", neutral.dump(),
                           " means"));
  }

 private:
  const std::string& file_;
  const json& object_;
  absl::Status status_;
};

void RefuseWhatIsNotComputed(Keys& keys, HuggingFaceLayout layout) {
  keys.Only("hidden_act", "silu");
  keys.Only("attention_bias", false);
  keys.Only("mlp_bias", false);
  keys.Only("attention_dropout", 0);
  keys.Only("clip_qkv", nullptr);
  keys.Only("router_jitter_noise", 0);
  keys.Only("partial_rotary_factor", 1);
  keys.Only("quantization_config", nullptr);
  keys.Only("use_sliding_window", false);
  if (layout != HuggingFaceLayout::kQwen3Moe) keys.Only("sliding_window", nullptr);
}

// transformers 5 writes rope_parameters, earlier versions rope_theta and rope_scaling.
double RopeTheta(Keys& keys, HuggingFaceLayout layout) {
  const double otherwise = layout == HuggingFaceLayout::kMixtral ? 1e6 : 1e4;
  double theta = keys.PositiveOr("rope_theta", keys.At("rope_theta"), otherwise);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json& rope = keys.At(key);
    if (rope.is_null()) continue;
    if (!rope.is_object()) {
      keys.Fail(key, absl::StrCat("is ", rope.dump(), ", must be an object"));
      continue;
    }
    for (const auto& [name, value] : rope.items()) {
      const std::string path = absl::StrCat(key, ".", name);
      if (name == "rope_theta") {
        theta = keys.PositiveOr(path, value, theta);
      } else if (!((name == "rope_type" || name == "type") && value == "default")) {
        keys.Fail(path, absl::StrCat("is ", value.dump(),
                                     ", but Moebius computes only the unscaled rotary embedding"));
      }
    }
  }
  return theta;
}

void ReadTransformer(Keys& keys, HuggingFaceLayout layout, ModelConfig& model) {
  model.set_num_layers(keys.Int("num_hidden_layers"));
  model.set_hidden_size(keys.Int("hidden_size"));
  model.set_num_heads(keys.Int("num_attention_heads"));
  model.set_vocab_size(keys.Int("vocab_size"));
  model.set_tie_embeddings(keys.BoolOr("tie_word_embeddings", false));
  model.set_rope_theta(RopeTheta(keys, layout));

  const bool is_qwen = layout == HuggingFaceLayout::kQwen3Moe;
  model.set_norm_epsilon(
      keys.PositiveOr("rms_norm_eps", keys.At("rms_norm_eps"), is_qwen ? 1e-6 : 1e-5));
  model.set_num_kv_heads(keys.IntOr("num_key_value_heads", model.num_heads()));
  model.set_head_dim(keys.IntOr("head_dim", model.hidden_size() / model.num_heads()));
  if (model.num_heads() % model.num_kv_heads() != 0) {
    keys.Fail("num_key_value_heads", absl::StrCat("is ", model.num_kv_heads(), ", must divide the ",
                                                  model.num_heads(), " attention heads"));
  }
  if (model.head_dim() % 2 != 0) {
    keys.Fail("head_dim", absl::StrCat("is ", model.head_dim(), ", must be even"));
  }
  switch (layout) {
    case HuggingFaceLayout::kQwen3Moe:
      model.set_qk_norm(ModelConfig::PER_HEAD);
      break;
    case HuggingFaceLayout::kOlmoe:
      model.set_qk_norm(ModelConfig::WHOLE);
      if (model.num_heads() * model.head_dim() != model.hidden_size()) {
        keys.Fail("head_dim", "in the layout olmoe it is hidden_size / num_attention_heads");
      }
      break;
    case HuggingFaceLayout::kMixtral:
      model.set_qk_norm(ModelConfig::NONE);
      break;
  }
}

// Qwen3-MoE: a layer has experts if every decoder_sparse_step-th does and mlp_only_layers spares
// it.
void ReadDenseLayers(Keys& keys, ModelConfig& model) {
  const int64_t step = keys.IntOr("decoder_sparse_step", 1);
  std::vector<bool> has_experts(model.num_layers());
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    has_experts[layer] = (layer + 1) % step == 0;
  }
  const json& dense = keys.At("mlp_only_layers");
  if (!dense.is_null() && !dense.is_array()) {
    keys.Fail("mlp_only_layers", absl::StrCat("is ", dense.dump(), ", must be a list"));
    return;
  }
  for (const json& layer : dense) {
    if (!layer.is_number_integer()) {
      keys.Fail("mlp_only_layers", absl::StrCat("holds ", layer.dump(), ", must hold integers"));
    } else if (layer >= 0 && layer < model.num_layers()) {
      has_experts[layer.get<int64_t>()] = false;
    }
  }
  if (std::ranges::find(has_experts, false) == has_experts.end()) return;
  model.set_ffn_hidden_size(keys.Int("intermediate_size"));
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    if (has_experts[layer]) model.mutable_moe()->add_layers(static_cast<int32_t>(layer));
  }
  if (model.moe().layers().empty()) keys.Fail("mlp_only_layers", "leaves no layer with experts");
}

void ReadMoe(Keys& keys, HuggingFaceLayout layout, ModelConfig& model) {
  const bool is_qwen = layout == HuggingFaceLayout::kQwen3Moe;
  // transformers 5 takes either name in every layout and writes the second for Qwen3-MoE.
  const char* const experts_key =
      keys.At("num_experts").is_null() ? "num_local_experts" : "num_experts";
  MoeConfig& moe = *model.mutable_moe();
  moe.set_num_experts(keys.Int(experts_key));
  moe.set_top_k(keys.Int("num_experts_per_tok"));
  moe.set_expert_hidden_size(keys.Int(is_qwen ? "moe_intermediate_size" : "intermediate_size"));
  moe.mutable_router()->set_renormalize(layout == HuggingFaceLayout::kMixtral ||
                                        keys.BoolOr("norm_topk_prob", false));
  if (moe.top_k() > moe.num_experts()) {
    keys.Fail("num_experts_per_tok",
              absl::StrCat("is ", moe.top_k(), ", more than the ", moe.num_experts(), " experts"));
  }
  if (is_qwen) ReadDenseLayers(keys, model);
}

}  // namespace

absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(const std::string& file,
                                                         const std::string& text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is not a JSON object"));
  }
  Keys keys(file, object);
  const json& model_type = keys.At("model_type");
  if (!model_type.is_string()) {
    keys.Fail("model_type", "missing");
    return keys.status();
  }
  HuggingFaceConfig config;
  const auto layout = ParseHuggingFaceLayout(model_type);
  if (!layout.ok()) {
    keys.Fail("model_type", std::string(layout.status().message()));
    return keys.status();
  }
  config.layout = *layout;
  RefuseWhatIsNotComputed(keys, config.layout);
  ReadTransformer(keys, config.layout, config.model);
  ReadMoe(keys, config.layout, config.model);
  config.max_position_embeddings = keys.IntOr("max_position_embeddings", 4096);
  RETURN_IF_ERROR(keys.status());
  return config;
}

}  // namespace moebius
