// One AdamW update of one tensor, in place. Loshchilov and Hutter, "Decoupled Weight Decay
// Regularization", 2019, algorithm 2.
//   g = gradient_scale * gradient
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g^2
//   w = w - learning_rate * (m' / (sqrt(v') + epsilon) + weight_decay * w)
// with m' = m / (1 - beta1^step), v' = v / (1 - beta2^step).
#pragma once

#include <span>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"

namespace moebius::kernels {

struct AdamWArgs {
  Tensor value, gradient, m, v;  // one shape; all F32 or all F64
  double learning_rate;
  double beta1, beta2;
  double epsilon;
  double weight_decay;  // 0 for what is not decayed
  int64_t step;         // of this update, from 1
  double gradient_scale = 1;

  // Packed images of the value (weight_images.h) that are made anew while it is at hand: the value
  // is a weight [N, K] or [e, N, K] in F32 then.
  struct Image {
    WeightFormat format;
    Tensor tensor;
  };
  std::span<const Image> images = {};
};
void AdamW(const AdamWArgs& args, Context& ctx);

}  // namespace moebius::kernels
