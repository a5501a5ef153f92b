// Limited by bandwidth: scores are read once, their gradient written once.
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// A loss as a token's warp sees it: its value, and the derivative by each of its E inputs times
// `factor`. All lanes call.
struct Balance {
  const float *scores, *fractions;
  int64_t E, tokens_per_group;
  bool normalize;

  __device__ float Value(int64_t t) const {
    const float* f = FractionsOf(t);
    float sum = 0;
    for (int64_t e = LaneIndex(); e < E; e += kWarp) sum += f[e] * scores[t * E + e];
    return WarpSum(sum) / Normalizer(t);
  }
  __device__ auto Gradient(int64_t t, float factor) const {
    const float* f = FractionsOf(t);
    const float mean = normalize ? Value(t) : 0.0f, factor_t = factor / Normalizer(t);
    return [=](int64_t e) { return factor_t * (f[e] - mean); };
  }

 private:
  __device__ const float* FractionsOf(int64_t t) const {
    return fractions + t / tokens_per_group * E;
  }
  __device__ float Normalizer(int64_t t) const {
    if (!normalize) return 1;
    float sum = 0;
    for (int64_t e = LaneIndex(); e < E; e += kWarp) sum += scores[t * E + e];
    return WarpSum(sum) + 1e-20f;
  }
};

struct SquaredLogSumExp {
  const float* logits;
  int64_t E;

  __device__ double Value(int64_t t) const {
    const double log_sum = LogSumExp(t);
    return log_sum * log_sum;
  }
  __device__ auto Gradient(int64_t t, float factor) const {
    const float* z = logits + t * E;
    const float log_sum = LogSumExp(t), factor_t = factor * 2 * log_sum;
    return [=](int64_t e) { return factor_t * expf(z[e] - log_sum); };
  }

 private:
  __device__ float LogSumExp(int64_t t) const {
    const float* z = logits + t * E;
    float max = -INFINITY;
    for (int64_t e = LaneIndex(); e < E; e += kWarp) max = fmaxf(max, z[e]);
    max = WarpReduce(max, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0;
    for (int64_t e = LaneIndex(); e < E; e += kWarp) sum += expf(z[e] - max);
    return max + logf(WarpSum(sum));
  }
};

__device__ bool IsPadding(const int32_t* ids, int64_t t) { return ids != nullptr && ids[t] < 0; }

constexpr int64_t kMaxBlocks = 512;  // of partial sums

// A sum for each block, whose warps go over tokens, then that of all.
template <class Loss>
__global__ void TokensKernel(Loss loss, const int32_t* ids, int64_t num_tokens, double* sums) {
  double sum = 0;
  for (int64_t t = WarpIndex(); t < num_tokens; t += IndexStride() / kWarp) {
    if (!IsPadding(ids, t)) sum += loss.Value(t);
  }
  sum = BlockSum(LaneIndex() == 0 ? sum : 0.0);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void TotalKernel(const double* sums, int64_t n, double factor, double* value) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += sums[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) *value = factor * sum;
}

// A warp for each token.
template <class Loss>
__global__ void GradientKernel(Loss loss, const int32_t* ids, int64_t num_tokens, float factor,
                               float* dx, bool accumulate) {
  const int64_t t = WarpIndex(), E = loss.E;
  if (t >= num_tokens) return;
  if (IsPadding(ids, t)) {
    for (int64_t e = LaneIndex(); e < E && !accumulate; e += kWarp) dx[t * E + e] = 0;
    return;
  }
  const auto gradient = loss.Gradient(t, factor);
  for (int64_t e = LaneIndex(); e < E; e += kWarp) Put(dx[t * E + e], gradient(e), accumulate);
}

template <class Loss>
void SumOverTokens(const Loss& loss, const Tensor& document_ids, int64_t T, double factor,
                   const Tensor& value, Context& ctx) {
  LaunchShape shape = WarpForEach(T);
  shape.blocks = std::min(shape.blocks, kMaxBlocks);
  const Tensor sums = ctx.Empty(DType::kF64, {shape.blocks}, "router_losses.sums");
  Launch(TokensKernel<Loss>, shape, ctx, loss, document_ids.device_data<int32_t>(), T,
         sums.device_data<double>());
  Launch(TotalKernel, BlockForEach(1), ctx, sums.device_data<double>(), shape.blocks, factor,
         value.device_data<double>());
}

template <class Loss>
void GradientOverTokens(const Loss& loss, const Tensor& document_ids, double factor,
                        const kernels::RouterLossGradientArgs& gradient, Context& ctx) {
  const int64_t T = gradient.dx.shape()[0];
  Launch(GradientKernel<Loss>, WarpForEach(T), ctx, loss, document_ids.device_data<int32_t>(), T,
         factor, gradient.dx.device_data<float>(), gradient.accumulate);
}

Balance BalanceOf(const Tensor& scores, const kernels::BalanceLossOptions& options) {
  return {scores.device_data<float>(), options.fractions.device_data<float>(), scores.shape()[1],
          options.tokens_per_group, options.normalize_scores};
}

}  // namespace

void BalanceLoss(const Tensor& scores, const kernels::BalanceLossOptions& options,
                 const Tensor& value, Context& ctx) {
  const auto [T, E] = Dims<2>(scores);
  SumOverTokens(BalanceOf(scores, options), options.document_ids, T,
                static_cast<double>(E) / options.divisor, value, ctx);
}

void BalanceLossGradient(const Tensor& scores, const kernels::BalanceLossOptions& options,
                         const kernels::RouterLossGradientArgs& gradient, Context& ctx) {
  const auto E = static_cast<double>(scores.shape()[1]);
  GradientOverTokens(BalanceOf(scores, options), options.document_ids,
                     gradient.coefficient * E / options.divisor, gradient, ctx);
}

void ZLoss(const Tensor& logits, const kernels::ZLossOptions& options, const Tensor& value,
           Context& ctx) {
  const auto [T, E] = Dims<2>(logits);
  SumOverTokens(SquaredLogSumExp{logits.device_data<float>(), E}, options.document_ids, T,
                1 / options.divisor, value, ctx);
}

void ZLossGradient(const Tensor& logits, const kernels::ZLossOptions& options,
                   const kernels::RouterLossGradientArgs& gradient, Context& ctx) {
  GradientOverTokens(SquaredLogSumExp{logits.device_data<float>(), logits.shape()[1]},
                     options.document_ids, gradient.coefficient / options.divisor, gradient, ctx);
}

}  // namespace moebius::cuda
