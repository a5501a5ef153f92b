// Limited by bandwidth: rows are read and written once for each pair, those of tokens once for all.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// A plan as kernels see it: the pairs of token t are offsets[t] .. offsets[t + 1].
struct Pairs {
  const int32_t *offsets, *expert, *row;
  int64_t num_tokens;
};

Pairs PairsOf(const RoutingPlan& plan) {
  return {plan.token_offsets.device_data<int32_t>(), plan.expert.device_data<int32_t>(),
          plan.row.device_data<int32_t>(), plan.num_tokens()};
}

// A warp for each token.
__global__ void PairWeightsKernel(const float* scores, Pairs pairs, int64_t E, bool renormalize,
                                  float scale, float* weights) {
  const int64_t t = WarpIndex();
  if (t >= pairs.num_tokens) return;
  const float* scores_t = scores + t * E;
  const int64_t begin = pairs.offsets[t] + LaneIndex(), end = pairs.offsets[t + 1];
  float sum = 0;
  for (int64_t p = begin; p < end; p += kWarp) sum += scores_t[pairs.expert[p]];
  sum = WarpSum(sum) + 1e-20f;
  const float factor = scale / (renormalize ? sum : 1.0f);
  for (int64_t p = begin; p < end; p += kWarp) weights[p] = scores_t[pairs.expert[p]] * factor;
}

// A warp for each token, which has no expert twice.
__global__ void PairWeightsGradientKernel(const float* scores, Pairs pairs, int64_t E,
                                          bool renormalize, float scale, const float* dweights,
                                          float* dscores, bool accumulate) {
  const int64_t t = WarpIndex();
  if (t >= pairs.num_tokens) return;
  const float* scores_t = scores + t * E;
  float* dscores_t = dscores + t * E;
  if (!accumulate) {
    for (int64_t e = LaneIndex(); e < E; e += kWarp) dscores_t[e] = 0;
    __syncwarp();
  }
  const int64_t begin = pairs.offsets[t] + LaneIndex(), end = pairs.offsets[t + 1];
  float sum = 0, inner = 0;
  for (int64_t p = begin; p < end; p += kWarp) {
    const float score = scores_t[pairs.expert[p]];
    sum += score;
    inner += dweights[p] * score;
  }
  sum = WarpSum(sum) + 1e-20f;
  inner = WarpSum(inner);
  const float factor = scale / (renormalize ? sum : 1.0f);
  const float mean = renormalize ? inner / sum : 0.0f;
  for (int64_t p = begin; p < end; p += kWarp) {
    dscores_t[pairs.expert[p]] += factor * (dweights[p] - mean);
  }
}

// A block for each token.
template <class T>
__global__ void PermuteKernel(const T* x, Pairs pairs, T* rows, int64_t D) {
  const int64_t t = blockIdx.x;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    const T value = x[t * D + d];
    for (int64_t p = pairs.offsets[t]; p < pairs.offsets[t + 1]; ++p) {
      rows[pairs.row[p] * D + d] = value;
    }
  }
}

// A block for each token. No weights: all are 1.
template <class T>
__global__ void SumRowsKernel(const T* rows, const float* weights, Pairs pairs, T* y,
                              bool accumulate, int64_t D) {
  const int64_t t = blockIdx.x;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    float sum = 0;
    for (int64_t p = pairs.offsets[t]; p < pairs.offsets[t + 1]; ++p) {
      const float weight = weights == nullptr ? 1.0f : weights[p];
      sum += weight * Get(rows[pairs.row[p] * D + d]);
    }
    Put(y[t * D + d], sum, accumulate);
  }
}

// A warp for each token, pair after pair.
template <class T>
__global__ void CombineGradientKernel(const T* dy, const T* rows, const float* weights, Pairs pairs,
                                      T* drows, bool accumulate_drows, float* dweights,
                                      bool accumulate_dweights, int64_t D) {
  const int64_t t = WarpIndex();
  if (t >= pairs.num_tokens) return;
  for (int64_t p = pairs.offsets[t]; p < pairs.offsets[t + 1]; ++p) {
    const int64_t row = pairs.row[p] * D;
    const float weight = weights[p];
    float sum = 0;
    for (int64_t d = LaneIndex(); d < D; d += kWarp) {
      const float g = Get(dy[t * D + d]);
      sum += Get(rows[row + d]) * g;
      Put(drows[row + d], weight * g, accumulate_drows);
    }
    sum = WarpSum(sum);
    if (LaneIndex() == 0) Put(dweights[p], sum, accumulate_dweights);
  }
}

__global__ void WeightsByRowKernel(const float* weights, const int32_t* row, int64_t P, float* y) {
  for (int64_t p = FirstIndex(); p < P; p += IndexStride()) y[row[p]] = weights[p];
}

__global__ void WeightsByRowGradientKernel(const float* dy, const int32_t* row, int64_t P,
                                           float* dweights, bool accumulate) {
  for (int64_t p = FirstIndex(); p < P; p += IndexStride()) {
    Put(dweights[p], dy[row[p]], accumulate);
  }
}

void SumRows(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             bool accumulate, Context& ctx) {
  WithType(y.dtype(), [&]<class T>(T) {
    Launch(SumRowsKernel<T>, BlockForEach(plan.num_tokens()), ctx, rows.device_data<T>(),
           weights.device_data<float>(), PairsOf(plan), y.device_data<T>(), accumulate,
           y.shape()[1]);
  });
}

}  // namespace

void PairWeights(const kernels::PairWeightsArgs& args, Context& ctx) {
  Launch(PairWeightsKernel, WarpForEach(args.plan.num_tokens()), ctx,
         args.scores.device_data<float>(), PairsOf(args.plan), args.plan.num_experts(),
         args.renormalize, args.scale, args.weights.device_data<float>());
}

void PairWeightsGradient(const kernels::PairWeightsGradientArgs& args, Context& ctx) {
  Launch(PairWeightsGradientKernel, WarpForEach(args.plan.num_tokens()), ctx,
         args.scores.device_data<float>(), PairsOf(args.plan), args.plan.num_experts(),
         args.renormalize, args.scale, args.dweights.device_data<float>(),
         args.dscores.device_data<float>(), args.accumulate);
}

void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx) {
  WithType(x.dtype(), [&]<class T>(T) {
    Launch(PermuteKernel<T>, BlockForEach(plan.num_tokens()), ctx, x.device_data<T>(),
           PairsOf(plan), rows.device_data<T>(), x.shape()[1]);
  });
}

void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx) {
  SumRows(args.drows, Tensor(), args.plan, args.dx, args.accumulate, ctx);
}

void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx) {
  SumRows(rows, weights, plan, y, false, ctx);
}

void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx) {
  WithType(args.dy.dtype(), [&]<class T>(T) {
    Launch(CombineGradientKernel<T>, WarpForEach(args.plan.num_tokens()), ctx,
           args.dy.device_data<T>(), args.rows.device_data<T>(), args.weights.device_data<float>(),
           PairsOf(args.plan), args.drows.device_data<T>(), args.accumulate_drows,
           args.dweights.device_data<float>(), args.accumulate_dweights, args.dy.shape()[1]);
  });
}

void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context& ctx) {
  const int64_t P = plan.num_pairs();
  Launch(WeightsByRowKernel, ForElements(P), ctx, weights.device_data<float>(),
         plan.row.device_data<int32_t>(), P, y.device_data<float>());
}

void WeightsByRowGradient(const kernels::WeightsByRowGradientArgs& args, Context& ctx) {
  const int64_t P = args.plan.num_pairs();
  Launch(WeightsByRowGradientKernel, ForElements(P), ctx, args.dy.device_data<float>(),
         args.plan.row.device_data<int32_t>(), P, args.dweights.device_data<float>(),
         args.accumulate);
}

}  // namespace moebius::cuda
