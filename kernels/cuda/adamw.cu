// Limited by bandwidth: value, m and v are read and written once, the gradient is read once.
#include <math.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

struct Rates {
  double beta1, beta2, epsilon, weight_decay;
};

struct Factors {
  float gradient_scale, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float root_of_bias2, epsilon, step_size, keep;
};

__device__ Factors FactorsOf(const Rates& rates, const double* state) {
  const double bias1 = 1 - pow(rates.beta1, state[StepState::kStep]);
  const double bias2 = 1 - pow(rates.beta2, state[StepState::kStep]);
  const double learning_rate = state[StepState::kLearningRate];
  return {static_cast<float>(state[StepState::kClipScale]),
          static_cast<float>(rates.beta1),
          static_cast<float>(rates.beta2),
          static_cast<float>(1 - rates.beta1),
          static_cast<float>(1 - rates.beta2),
          static_cast<float>(1 / sqrt(bias2)),
          static_cast<float>(rates.epsilon),
          static_cast<float>(learning_rate / bias1),
          static_cast<float>(1 - learning_rate * rates.weight_decay)};
}

__global__ void UpdateKernel(Rates rates, const double* state, const float* gradient, float* w,
                             float* m, float* v, int64_t n) {
  __shared__ Factors f;
  if (state[StepState::kUpdates] == 0) return;  // all threads alike
  if (threadIdx.x == 0) f = FactorsOf(rates, state);
  __syncthreads();
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    const float g = f.gradient_scale * gradient[i];
    const float m_i = f.beta1 * m[i] + f.one_minus_beta1 * g;
    const float v_i = f.beta2 * v[i] + f.one_minus_beta2 * g * g;
    m[i] = m_i, v[i] = v_i;
    w[i] = f.keep * w[i] - f.step_size * m_i / (sqrtf(v_i) * f.root_of_bias2 + f.epsilon);
  }
}

// By one thread.
__global__ void DecideKernel(const double* loss, const double* squares, const double* overflow,
                             double clip_norm, double* state) {
  if (threadIdx.x > 0) return;
  const double norm = sqrt(*squares);
  const bool clips = clip_norm > 0 && norm > clip_norm;
  state[StepState::kClipScale] = clips ? clip_norm / norm : 1.0;
  const bool overflows = overflow != nullptr && *overflow != 0;
  state[StepState::kUpdates] = isfinite(*loss) && isfinite(norm) && !overflows ? 1.0 : 0.0;
  state[StepState::kLoss] = *loss;
  state[StepState::kGradientNorm] = norm;
}

}  // namespace

void AdamW(const kernels::AdamWArgs& args, Context& ctx) {
  const Rates rates = {args.beta1, args.beta2, args.epsilon, args.weight_decay};
  Launch(UpdateKernel, ForElements(args.value.size()), ctx, rates, args.state.device_data<double>(),
         args.gradient.device_data<float>(), args.value.device_data<float>(),
         args.m.device_data<float>(), args.v.device_data<float>(), args.value.size());
}

void DecideUpdate(const kernels::DecideUpdateArgs& args, Context& ctx) {
  Launch(DecideKernel, BlockForEach(1, kWarp), ctx, args.loss.device_data<double>(),
         args.squares.device_data<double>(), args.overflow.device_data<double>(), args.clip_norm,
         args.state.device_data<double>());
}

}  // namespace moebius::cuda
