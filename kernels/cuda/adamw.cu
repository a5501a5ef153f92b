// Limited by bandwidth: value, m and v are read and written once, the gradient is read once, the
// image is written once.
#include <math.h>

#include "kernels/adamw_update.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// image: null if there is none.
__global__ void UpdateKernel(kernels::AdamWRates rates, const double* state, const float* gradient,
                             float* w, float* m, float* v, BF16* image, int64_t n) {
  __shared__ kernels::AdamWUpdate of_block;
  if (state[StepState::kUpdates] == 0) return;  // all threads alike
  if (threadIdx.x == 0) of_block = kernels::AdamWUpdate::Of(rates, state);
  __syncthreads();
  const kernels::AdamWUpdate update = of_block;
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    float w_i = w[i];
    update.Apply(gradient[i], w_i, m[i], v[i]);
    w[i] = w_i;
    if (image != nullptr) Put(image[i], w_i);
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
  CHECK_LE(args.images.size(), 1u) << "weights are read as they are, in BF16";
  const kernels::AdamWRates rates = {args.beta1, args.beta2, args.epsilon, args.weight_decay};
  BF16* const image = args.images.empty() ? nullptr : args.images[0].tensor.device_data<BF16>();
  Launch(UpdateKernel, ForElements(args.value.size()), ctx, rates, args.state.device_data<double>(),
         args.gradient.device_data<float>(), args.value.device_data<float>(),
         args.m.device_data<float>(), args.v.device_data<float>(), image, args.value.size());
}

void DecideUpdate(const kernels::DecideUpdateArgs& args, Context& ctx) {
  Launch(DecideKernel, BlockForEach(1, kWarp), ctx, args.loss.device_data<double>(),
         args.squares.device_data<double>(), args.overflow.device_data<double>(), args.clip_norm,
         args.state.device_data<double>());
}

}  // namespace moebius::cuda
