#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/weight_images.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements of a task

struct Factors {
  float gradient_scale, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float root_of_bias2, epsilon, step_size, keep;
};

MOEBIUS_CLONES void Update(const Factors f, const float* gradient, float* w, float* m, float* v,
                           int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = f.gradient_scale * gradient[i];
    m[i] = f.beta1 * m[i] + f.one_minus_beta1 * g;
    v[i] = f.beta2 * v[i] + f.one_minus_beta2 * g * g;
    w[i] = f.keep * w[i] - f.step_size * m[i] / (std::sqrt(v[i]) * f.root_of_bias2 + f.epsilon);
  }
}

Factors FactorsOf(const kernels::AdamWArgs& args) {
  const double* const state = args.state.data<double>();
  const double bias1 = 1 - std::pow(args.beta1, state[StepState::kStep]);
  const double bias2 = 1 - std::pow(args.beta2, state[StepState::kStep]);
  const double learning_rate = state[StepState::kLearningRate];
  const auto f32 = [](double x) { return static_cast<float>(x); };
  return {.gradient_scale = f32(state[StepState::kClipScale]),
          .beta1 = f32(args.beta1),
          .beta2 = f32(args.beta2),
          .one_minus_beta1 = f32(1 - args.beta1),
          .one_minus_beta2 = f32(1 - args.beta2),
          .root_of_bias2 = f32(1 / std::sqrt(bias2)),
          .epsilon = f32(args.epsilon),
          .step_size = f32(learning_rate / bias1),
          .keep = f32(1 - learning_rate * args.weight_decay)};
}

}  // namespace

void AdamW(const kernels::AdamWArgs& args, Context& ctx, const SimdKernels& simd) {
  if (args.state.data<double>()[StepState::kUpdates] == 0) return;
  const Factors factors = FactorsOf(args);
  const auto update = [&](int64_t begin, int64_t size) {
    Update(factors, args.gradient.data<float>() + begin, args.value.data<float>() + begin,
           args.m.data<float>() + begin, args.v.data<float>() + begin, size);
  };
  if (args.images.empty()) {
    ctx.pool().ForRange(args.value.size(), kGrain,
                        [&](int64_t begin, int64_t end) { update(begin, end - begin); });
    return;
  }
  std::vector<PackedImage> images;
  for (const auto& [format, tensor] : args.images) {
    images.push_back({format == WeightFormat::kPackedTransposed, tensor});
  }
  const WeightBlocks blocks(args.value, images, simd);
  ForWithScratch(ctx, blocks.count(), blocks.scratch(), "weight_image.scratch",
                 [&](int64_t i, float* scratch) { blocks.Pack(i, scratch, update); });
}

}  // namespace moebius::cpu
