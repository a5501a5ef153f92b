// What a step's loss and gradient say of its update; and one AdamW update of one tensor, in place.
// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2.
//   g = clip_scale * gradient
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
  Tensor state;                  // [StepState::kSize] F64; where it says so, nothing is updated
  double beta1, beta2;
  double epsilon;
  double weight_decay;  // 0 for what is not decayed

  // Images of the value (weight_images.h), of each format and dtype one at most, that are made anew
  // while it is at hand. The value is in F32 then, in the shape of the weight, and the plain image
  // in BF16. Where nothing is updated they are left as they are.
  struct Image {
    WeightFormat format;
    Tensor tensor;
  };
  std::span<const Image> images = {};
};
void AdamW(const AdamWArgs& args, Context& ctx);

// Writes the numbers of `state` from clip scale to gradient norm. A gradient longer than clip_norm
// is scaled to it; where loss or norm are not finite, or rows overflowed, nothing is updated.
struct DecideUpdateArgs {
  Tensor loss;           // [1] F64
  Tensor squares;        // [1] F64: the sum of squares of the whole gradient
  Tensor overflow = {};  // [1] F64: not 0 where an exchange lacked room (row_slots.h); or undefined
  double clip_norm = 0;  // 0: no clipping
  Tensor state;          // [StepState::kSize] F64
};
void DecideUpdate(const DecideUpdateArgs& args, Context& ctx);

}  // namespace moebius::kernels
