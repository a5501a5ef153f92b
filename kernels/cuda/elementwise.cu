// Limited by bandwidth: every element is read and written once.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

template <class T>
__global__ void AddKernel(const T* a, const T* b, T* y, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) Put(y[i], Get(a[i]) + Get(b[i]));
}

template <class From, class To>
__global__ void CastKernel(const From* x, To* y, bool accumulate, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) Put(y[i], Get(x[i]), accumulate);
}

__global__ void ScaleKernel(float* x, float factor, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) x[i] *= factor;
}

constexpr int64_t kMaxSumBlocks = 512;

// A sum for each block, then that of all.
template <class T>
__global__ void SquaresKernel(const T* x, int64_t n, double* sums) {
  double sum = 0;
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    sum += static_cast<double>(Get(x[i])) * Get(x[i]);
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void SumKernel(const double* x, int64_t n, double* total, bool accumulate) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) *total = accumulate ? *total + sum : sum;
}

}  // namespace

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx) {
  WithType(y.dtype(), [&]<class T>(T) {
    Launch(AddKernel<T>, ForElements(y.size()), ctx, a.device_data<T>(), b.device_data<T>(),
           y.device_data<T>(), y.size());
  });
}

void Cast(const kernels::CastArgs& args, Context& ctx) {
  WithType(args.x.dtype(), [&]<class From>(From) {
    WithType(args.y.dtype(), [&]<class To>(To) {
      Launch(CastKernel<From, To>, ForElements(args.y.size()), ctx, args.x.device_data<From>(),
             args.y.device_data<To>(), args.accumulate, args.y.size());
    });
  });
}

void Scale(const Tensor& x, double factor, Context& ctx) {
  Launch(ScaleKernel, ForElements(x.size()), ctx, x.device_data<float>(),
         static_cast<float>(factor), x.size());
}

void Sum(const kernels::SumArgs& args, Context& ctx) {
  Launch(SumKernel, BlockForEach(1), ctx, args.x.device_data<double>(), args.x.size(),
         args.sum.device_data<double>(), args.accumulate);
}

void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx) {
  const int64_t blocks = std::min(kMaxSumBlocks, ForElements(x.size()).blocks);
  const Tensor sums = ctx.Empty(DType::kF64, {blocks}, "sum_of_squares");
  WithType(x.dtype(), [&]<class T>(T) {
    Launch(SquaresKernel<T>, BlockForEach(blocks), ctx, x.device_data<T>(), x.size(),
           sums.device_data<double>());
  });
  Sum({.x = sums, .sum = sum}, ctx);
}

}  // namespace moebius::cuda
