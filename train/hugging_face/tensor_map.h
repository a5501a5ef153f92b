// Which tensor of a Hugging Face file is which logical parameter. Both hold linear weights as
// [out, in] and turn rotary pairs half a head apart, so no tensor is transposed or permuted; the
// one difference is that Hugging Face keeps a tensor for each expert.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/model.pb.h"
#include "core/tensor/tensor.h"
#include "train/hugging_face/layout.h"

namespace moebius {

struct HuggingFaceTensor {
  std::string name;       // "model.layers.0.mlp.experts.3.gate_proj.weight"
  Shape shape;            // [F, D]
  std::string parameter;  // "layers.0.moe.experts.gate.weight"
  int64_t expert = -1;    // index on the parameter's leading dimension; -1: the whole parameter
};

// Every tensor of the model, once. The tensors of one parameter stand together, by expert.
// REQUIRES: CheckExpressible(model, layout) is OK, and every default of `model` is resolved.
std::vector<HuggingFaceTensor> MapHuggingFaceTensors(const ModelConfig& model,
                                                     HuggingFaceLayout layout);

}  // namespace moebius
