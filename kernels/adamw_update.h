// One element's AdamW update (adamw.h) in F32, as the CPU and a GPU compute it: for C++ and for
// nvcc.
#pragma once

#include <cmath>

#include "core/tensor/context.h"

#ifdef __CUDACC__
#define MOEBIUS_HOST_DEVICE __host__ __device__
#else
#define MOEBIUS_HOST_DEVICE
#endif

namespace moebius::kernels {

struct AdamWRates {
  double beta1, beta2, epsilon, weight_decay;
};

// The factors of a step, alike for all elements of a tensor.
struct AdamWUpdate {
  float gradient_scale, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float root_of_bias2, epsilon, step_size, keep;

  // `state`: the numbers of the step (StepState).
  MOEBIUS_HOST_DEVICE static AdamWUpdate Of(const AdamWRates& rates, const double* state) {
    const double bias1 = 1 - std::pow(rates.beta1, state[StepState::kStep]);
    const double bias2 = 1 - std::pow(rates.beta2, state[StepState::kStep]);
    const double learning_rate = state[StepState::kLearningRate];
    return {.gradient_scale = static_cast<float>(state[StepState::kClipScale]),
            .beta1 = static_cast<float>(rates.beta1),
            .beta2 = static_cast<float>(rates.beta2),
            .one_minus_beta1 = static_cast<float>(1 - rates.beta1),
            .one_minus_beta2 = static_cast<float>(1 - rates.beta2),
            .root_of_bias2 = static_cast<float>(1 / std::sqrt(bias2)),
            .epsilon = static_cast<float>(rates.epsilon),
            .step_size = static_cast<float>(learning_rate / bias1),
            .keep = static_cast<float>(1 - learning_rate * rates.weight_decay)};
  }

  MOEBIUS_HOST_DEVICE void Apply(float gradient, float& w, float& m, float& v) const {
    const float g = gradient_scale * gradient;
    const float new_m = beta1 * m + one_minus_beta1 * g;
    const float new_v = beta2 * v + one_minus_beta2 * g * g;
    w = keep * w - step_size * new_m / (std::sqrt(new_v) * root_of_bias2 + epsilon);
    m = new_m, v = new_v;
  }
};

}  // namespace moebius::kernels
