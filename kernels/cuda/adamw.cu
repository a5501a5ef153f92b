// Limited by bandwidth: value, m and v are read and written once, the gradient is read once.
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

struct Factors {
  float gradient_scale, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float root_of_bias2, epsilon, step_size, keep;
};

__global__ void UpdateKernel(Factors f, const float* gradient, float* w, float* m, float* v,
                             int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    const float g = f.gradient_scale * gradient[i];
    const float m_i = f.beta1 * m[i] + f.one_minus_beta1 * g;
    const float v_i = f.beta2 * v[i] + f.one_minus_beta2 * g * g;
    m[i] = m_i, v[i] = v_i;
    w[i] = f.keep * w[i] - f.step_size * m_i / (sqrtf(v_i) * f.root_of_bias2 + f.epsilon);
  }
}

}  // namespace

void AdamW(const kernels::AdamWArgs& args, Context& ctx) {
  const double bias1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
  const double bias2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
  const auto f32 = [](double x) { return static_cast<float>(x); };
  const Factors factors = {.gradient_scale = f32(args.gradient_scale),
                           .beta1 = f32(args.beta1),
                           .beta2 = f32(args.beta2),
                           .one_minus_beta1 = f32(1 - args.beta1),
                           .one_minus_beta2 = f32(1 - args.beta2),
                           .root_of_bias2 = f32(1 / std::sqrt(bias2)),
                           .epsilon = f32(args.epsilon),
                           .step_size = f32(args.learning_rate / bias1),
                           .keep = f32(1 - args.learning_rate * args.weight_decay)};
  Launch(UpdateKernel, ForElements(args.value.size()), ctx, factors,
         args.gradient.device_data<float>(), args.value.device_data<float>(),
         args.m.device_data<float>(), args.v.device_data<float>(), args.value.size());
}

}  // namespace moebius::cuda
