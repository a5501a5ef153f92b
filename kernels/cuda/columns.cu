// Limited by bandwidth: every element is read and written once.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// Columns begin .. begin + n of N, in each of T rows. A warp for each row.
struct Range {
  int64_t T, N, begin, n;
};

template <class T>
__global__ void ColumnsKernel(const T* x, Range range, T* y) {
  const int64_t t = WarpIndex();
  if (t >= range.T) return;
  x += t * range.N + range.begin, y += t * range.n;
  for (int64_t i = LaneIndex(); i < range.n; i += kWarp) y[i] = x[i];
}

template <class T>
__global__ void AddColumnsKernel(const T* dy, Range range, T* dx) {
  const int64_t t = WarpIndex();
  if (t >= range.T) return;
  dy += t * range.n, dx += t * range.N + range.begin;
  for (int64_t i = LaneIndex(); i < range.n; i += kWarp) Put(dx[i], Get(dy[i]), true);
}

template <class T>
__global__ void WriteColumnsKernel(const T* dy, Range range, T* dx) {
  const int64_t t = WarpIndex();
  if (t >= range.T) return;
  dy += t * range.n, dx += t * range.N;
  for (int64_t i = LaneIndex(); i < range.N; i += kWarp) {
    const int64_t from = i - range.begin;
    dx[i] = 0 <= from && from < range.n ? dy[from] : T(0.0f);
  }
}

}  // namespace

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx) {
  const Range range = {.T = x.shape()[0], .N = x.shape()[1], .begin = begin, .n = y.shape()[1]};
  WithType(x.dtype(), [&]<class T>(T) {
    Launch(ColumnsKernel<T>, WarpForEach(range.T), ctx, x.device_data<T>(), range,
           y.device_data<T>());
  });
}

void ColumnsGradient(const kernels::ColumnsGradientArgs& args, Context& ctx) {
  const Range range = {.T = args.dx.shape()[0],
                       .N = args.dx.shape()[1],
                       .begin = args.begin,
                       .n = args.dy.shape()[1]};
  WithType(args.dx.dtype(), [&]<class T>(T) {
    Launch(args.accumulate ? AddColumnsKernel<T> : WriteColumnsKernel<T>, WarpForEach(range.T), ctx,
           args.dy.device_data<T>(), range, args.dx.device_data<T>());
  });
}

}  // namespace moebius::cuda
