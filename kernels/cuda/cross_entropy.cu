// Limited by bandwidth: logits are read twice and their gradient written once; a row that was just
// read may still lie in the second-level cache.
#include <cfloat>
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

constexpr int kRowThreads = 512;  // a block for each row

struct RowSoftmax {
  float max, sum;  // of exp(x - max)
};

// Of a row, in all threads of its block. All threads call.
__device__ RowSoftmax SoftmaxOf(const float* x, int64_t V) {
  float max = -FLT_MAX, sum = 0;  // -infinity would be no number once it is subtracted from itself
  for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
    if (x[v] > max) {
      sum *= expf(max - x[v]);
      max = x[v];
    }
    sum += expf(x[v] - max);
  }
  const float max_of_all = BlockReduce(max, -FLT_MAX, [](float a, float b) { return fmaxf(a, b); });
  return {max_of_all, BlockSum(sum * expf(max - max_of_all))};
}

__device__ double Loss(float weight, double max, double sum, double at_label) {
  return weight == 0 ? 0 : weight * (max + log(sum) - at_label);
}

// Of a row, by all threads of its block; zeros for padding. dx may be x; `label` may lie outside.
template <class T>
__device__ void WriteGradient(const float* x, float max, float sum, float weight, int64_t label,
                              T* dx, int64_t V) {
  const float factor = 1.0f / sum;
  for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
    const float p = weight == 0 ? 0 : expf(x[v] - max) * factor - (v == label ? 1.0f : 0.0f);
    Put(dx[v], weight == 0 ? 0 : weight * p);
  }
}

// dlogits may be null.
template <class T>
__global__ void CrossEntropyKernel(const float* logits, const int32_t* labels, const float* weights,
                                   double* nll, T* dlogits, int64_t V) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * V;
  const float weight = weights[r];
  const int32_t label = weight == 0 ? 0 : labels[r];
  // Before the block's barriers: dlogits may be logits.
  const float at_label = weight == 0 ? 0 : x[label];
  const RowSoftmax softmax = weight == 0 ? RowSoftmax{0, 1} : SoftmaxOf(x, V);
  if (threadIdx.x == 0) nll[r] = Loss(weight, softmax.max, softmax.sum, at_label);
  if (dlogits == nullptr) return;
  WriteGradient(x, softmax.max, softmax.sum, weight, label, dlogits + r * V, V);
}

__global__ void StatisticsKernel(const float* logits, const int32_t* labels, const float* weights,
                                 int64_t first, double* statistics, int64_t V) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * V;
  const RowSoftmax softmax = SoftmaxOf(x, V);
  if (threadIdx.x > 0) return;
  const int64_t label = labels[r] - first;
  const bool has_label = weights[r] != 0 && 0 <= label && label < V;
  double* out = statistics + r * 3;
  out[0] = softmax.max, out[1] = softmax.sum, out[2] = has_label ? x[label] : 0;
}

__global__ void CombineKernel(const double* parts, int64_t num_parts, int64_t R, double* whole) {
  for (int64_t r = FirstIndex(); r < R; r += IndexStride()) {
    double max = parts[r * 3], sum = 0, label = 0;
    for (int64_t i = 1; i < num_parts; ++i) max = fmax(max, parts[(i * R + r) * 3]);
    for (int64_t i = 0; i < num_parts; ++i) {
      const double* part = parts + (i * R + r) * 3;
      sum += part[1] * exp(part[0] - max);
      label += part[2];
    }
    double* out = whole + r * 3;
    out[0] = max, out[1] = sum, out[2] = label;
  }
}

// dlogits may be null.
template <class T>
__global__ void PartKernel(const float* logits, const int32_t* labels, const float* weights,
                           int64_t first, const double* statistics, double* nll, T* dlogits,
                           int64_t V) {
  const int64_t r = blockIdx.x;
  const double* whole = statistics + r * 3;
  if (threadIdx.x == 0) nll[r] = Loss(weights[r], whole[0], whole[1], whole[2]);
  if (dlogits == nullptr) return;
  WriteGradient(logits + r * V, static_cast<float>(whole[0]), static_cast<float>(whole[1]),
                weights[r], labels[r] - first, dlogits + r * V, V);
}

// Undefined `dlogits` are a null of either type.
DType GradientDType(const Tensor& dlogits) {
  return dlogits.defined() ? dlogits.dtype() : DType::kF32;
}

}  // namespace

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  WithType(GradientDType(args.dlogits), [&, R = R, V = V]<class T>(T) {
    Launch(CrossEntropyKernel<T>, BlockForEach(R, kRowThreads), ctx,
           args.logits.device_data<float>(), args.labels.device_data<int32_t>(),
           args.weights.device_data<float>(), args.nll.device_data<double>(),
           args.dlogits.device_data<T>(), V);
  });
}

void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  Launch(StatisticsKernel, BlockForEach(R, kRowThreads), ctx, args.logits.device_data<float>(),
         args.labels.device_data<int32_t>(), args.weights.device_data<float>(), args.first,
         args.statistics.device_data<double>(), V);
}

void CombineStatistics(const Tensor& parts, const Tensor& whole, Context& ctx) {
  const auto [n, R, three] = Dims<3>(parts);
  Launch(CombineKernel, ForElements(R), ctx, parts.device_data<double>(), n, R,
         whole.device_data<double>());
}

void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx) {
  const auto [R, V] = Dims<2>(args.logits);
  WithType(GradientDType(args.dlogits), [&, R = R, V = V]<class T>(T) {
    Launch(PartKernel<T>, BlockForEach(R, kRowThreads), ctx, args.logits.device_data<float>(),
           args.labels.device_data<int32_t>(), args.weights.device_data<float>(), args.first,
           args.statistics.device_data<double>(), args.nll.device_data<double>(),
           args.dlogits.device_data<T>(), V);
  });
}

}  // namespace moebius::cuda
