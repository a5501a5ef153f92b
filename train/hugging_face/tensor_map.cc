#include "train/hugging_face/tensor_map.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "configs/validate.h"

namespace moebius {
namespace {

// The names that differ between layouts.
struct ExpertNames {
  const char* moe;
  const char* gate;
  const char* up;
  const char* down;
};

ExpertNames ExpertNamesOf(HuggingFaceLayout layout) {
  if (layout == HuggingFaceLayout::kMixtral) return {"block_sparse_moe", "w1", "w3", "w2"};
  return {"mlp", "gate_proj", "up_proj", "down_proj"};
}

class Mapper {
 public:
  Mapper(const ModelConfig& model, HuggingFaceLayout layout)
      : model_(model), names_(ExpertNamesOf(layout)) {}

  std::vector<MappedParameter> Map() && {
    const int64_t V = model_.vocab_size(), D = model_.hidden_size();
    Add("model.embed_tokens", "embedding", {V, D});
    for (int layer = 0; layer < model_.num_layers(); ++layer) MapLayer(layer);
    Add("model.norm", "final_norm", {D});
    if (!model_.tie_embeddings()) Add("lm_head", "head", {V, D});
    return std::move(parameters_);
  }

 private:
  void MapLayer(int layer) {
    theirs_ = absl::StrCat("model.layers.", layer, ".");
    ours_ = absl::StrCat("layers.", layer, ".");
    const int64_t D = model_.hidden_size();
    AddToLayer("input_layernorm", "attention_norm", {D});
    MapAttention();
    AddToLayer("post_attention_layernorm", "ffn_norm", {D});
    if (IsMoeLayer(model_, layer)) {
      MapMoe();
    } else {
      MapFeedForward();
    }
  }

  void MapAttention() {
    const int64_t D = model_.hidden_size(), C = model_.head_dim();
    const int64_t q_width = model_.num_heads() * C, kv_width = model_.num_kv_heads() * C;
    AddToLayer("self_attn.q_proj", "attention.q", {q_width, D});
    AddToLayer("self_attn.k_proj", "attention.k", {kv_width, D});
    AddToLayer("self_attn.v_proj", "attention.v", {kv_width, D});
    AddToLayer("self_attn.o_proj", "attention.o", {D, q_width});
    if (model_.qk_norm() == ModelConfig::NONE) return;
    const bool per_head = model_.qk_norm() == ModelConfig::PER_HEAD;
    AddToLayer("self_attn.q_norm", "attention.q_norm", {per_head ? C : q_width});
    AddToLayer("self_attn.k_norm", "attention.k_norm", {per_head ? C : kv_width});
  }

  void MapFeedForward() {
    const int64_t D = model_.hidden_size(), F = model_.ffn_hidden_size();
    AddToLayer("mlp.gate_proj", "ffn.gate", {F, D});
    AddToLayer("mlp.up_proj", "ffn.up", {F, D});
    AddToLayer("mlp.down_proj", "ffn.down", {D, F});
  }

  void MapMoe() {
    const int64_t D = model_.hidden_size(), F = model_.moe().expert_hidden_size();
    AddToLayer(absl::StrCat(names_.moe, ".gate"), "moe.router", {model_.moe().num_experts(), D});
    AddExperts(names_.gate, "gate", {F, D});
    AddExperts(names_.up, "up", {F, D});
    AddExperts(names_.down, "down", {D, F});
  }

  void Add(const std::string& name, const std::string& parameter, const Shape& shape) {
    parameters_.push_back({.name = parameter + ".weight",
                           .shape = shape,
                           .tensors = {{.name = name + ".weight", .shape = shape}}});
  }
  void AddToLayer(const std::string& name, const std::string& parameter, const Shape& shape) {
    Add(theirs_ + name, ours_ + parameter, shape);
  }
  void AddExperts(const char* name, const char* parameter, const Shape& shape) {
    const int64_t E = model_.moe().num_experts();
    MappedParameter experts = {.name = absl::StrCat(ours_, "moe.experts.", parameter, ".weight"),
                               .shape = {E, shape[0], shape[1]},
                               .tensors = {}};
    for (int64_t expert = 0; expert < E; ++expert) {
      experts.tensors.push_back(
          {.name = absl::StrCat(theirs_, names_.moe, ".experts.", expert, ".", name, ".weight"),
           .shape = shape});
    }
    parameters_.push_back(std::move(experts));
  }

  const ModelConfig& model_;
  const ExpertNames names_;
  std::string theirs_;  // prefixes of the present layer
  std::string ours_;
  std::vector<MappedParameter> parameters_;
};

}  // namespace

std::vector<MappedParameter> MapParameters(const ModelConfig& model, HuggingFaceLayout layout) {
  return Mapper(model, layout).Map();
}

}  // namespace moebius
