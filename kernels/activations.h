// Nonlinearities: SwiGLU of feed-forward layers, softmax and sigmoid of routers.
//
// All tensors of a call have one dtype (F64 | F32 | BF16) and one shape. Each gradient is written,
// or added to its slot where `accumulate` says so.
#pragma once

#include "core/tensor/context.h"

namespace moebius::kernels {

// h = silu(gate) * up.  [R, F].  Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.
void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx);

struct SwiGluGradientArgs {
  Tensor gate, up, dh;
  Tensor dgate;
  bool accumulate_dgate;
  Tensor dup;
  bool accumulate_dup;
};
void SwiGluGradient(const SwiGluGradientArgs& args, Context& ctx);

// p[t, :] = exp(z[t, :] - max) / sum.  [T, E]
void Softmax(const Tensor& z, const Tensor& p, Context& ctx);

// s = 1 / (1 + exp(-z))
void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx);

// Of softmax and sigmoid, from their output y.
struct ScoreGradientArgs {
  Tensor y, dy;
  Tensor dz;
  bool accumulate;
};
void SoftmaxGradient(const ScoreGradientArgs& args, Context& ctx);
void SigmoidGradient(const ScoreGradientArgs& args, Context& ctx);

}  // namespace moebius::kernels
