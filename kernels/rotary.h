// Rotary position embedding in the rotate-half form of GPT-NeoX and Hugging Face. Of each head of C
// elements, the pair (i, i + C/2) is turned by the angle position * theta^(-2i/C).
// Su et al., "RoFormer", 2021, equation 34.
//
// x, y [T, H*C] F64 | F32 | BF16; positions [T] int32; C even. Angles are taken in double.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

struct RotaryArgs {
  Tensor x;
  Tensor positions;
  int64_t head_dim;  // C
  double theta;
  Tensor y;
  bool inverse = false;     // turned back: the gradient of Rotary
  bool accumulate = false;  // y is added to
};
void Rotary(const RotaryArgs& args, Context& ctx);

}  // namespace moebius::kernels
