// Which tensors of a Hugging Face file are which logical parameter. Both hold linear weights as
// [out, in] and turn rotary pairs half a head apart, so nothing is transposed or permuted; the one
// difference is that Hugging Face keeps a tensor for each expert.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/model.pb.h"
#include "core/tensor/tensor.h"
#include "train/hugging_face/layout.h"

namespace moebius {

struct HuggingFaceTensor {
  std::string name;  // "model.layers.0.mlp.experts.3.gate_proj.weight"
  Shape shape;       // [F, D]
};

// A logical parameter is its tensors one after another: one, or one for each expert.
struct MappedParameter {
  std::string name;  // "layers.0.moe.experts.gate.weight"
  Shape shape;       // [E, F, D]
  std::vector<HuggingFaceTensor> tensors;
};

// Every parameter of the model, in the order of the layers.
// REQUIRES: CheckExpressible(model, layout) is OK, and every default of `model` is resolved.
std::vector<MappedParameter> MapParameters(const ModelConfig& model, HuggingFaceLayout layout);

}  // namespace moebius
