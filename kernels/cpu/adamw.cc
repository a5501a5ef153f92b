#include <vector>

#include "kernels/adamw_update.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/weight_images.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements of a task

MOEBIUS_CLONES void Update(const kernels::AdamWUpdate update, const float* gradient, float* w,
                           float* m, float* v, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) update.Apply(gradient[i], w[i], m[i], v[i]);
}

}  // namespace

void AdamW(const kernels::AdamWArgs& args, Context& ctx, const SimdKernels& simd) {
  const double* const state = args.state.data<double>();
  if (state[StepState::kUpdates] == 0) return;
  const auto factors =
      kernels::AdamWUpdate::Of({args.beta1, args.beta2, args.epsilon, args.weight_decay}, state);
  uint16_t* plain = nullptr;
  std::vector<PackedImage> packed;
  for (const auto& [format, tensor] : args.images) {
    if (format == WeightFormat::kPlain) {
      plain = reinterpret_cast<uint16_t*>(tensor.data<BF16>());
    } else {
      packed.push_back({format == WeightFormat::kPackedTransposed, tensor});
    }
  }
  const auto update = [&](int64_t begin, int64_t size) {
    float* const w = args.value.data<float>() + begin;
    Update(factors, args.gradient.data<float>() + begin, w, args.m.data<float>() + begin,
           args.v.data<float>() + begin, size);
    if (plain != nullptr) simd.narrow(w, plain + begin, size);
  };
  if (packed.empty()) {
    ctx.pool().ForRange(args.value.size(), kGrain,
                        [&](int64_t begin, int64_t end) { update(begin, end - begin); });
    return;
  }
  const WeightBlocks blocks(args.value, packed, simd);
  ForWithScratch(ctx, blocks.count(), blocks.scratch(), "weight_image.scratch",
                 [&](int64_t i, float* scratch) { blocks.Pack(i, scratch, update); });
}

}  // namespace moebius::cpu
