// Limited by bandwidth: every element is read and written once; rows of scores stay in caches.
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

template <class T>
__global__ void SwiGluKernel(const T* gate, const T* up, T* h, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    const float g = Get(gate[i]);
    Put(h[i], g * Logistic(g) * Get(up[i]));
  }
}

template <class T>
__global__ void SwiGluGradientKernel(const T* gate, const T* up, const T* dh, T* dgate,
                                     bool accumulate_dgate, T* dup, bool accumulate_dup,
                                     int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    const float g = Get(gate[i]), u = Get(up[i]), d = Get(dh[i]), s = Logistic(g);
    Put(dgate[i], d * u * s * (1.0f + g * (1.0f - s)), accumulate_dgate);
    Put(dup[i], d * g * s, accumulate_dup);
  }
}

// A warp for each row: of R, or of those before *end. weights, dweights and end may be null.
template <class T>
struct WeightedSwiGlu {
  const T *gate, *up;
  const float *product, *weights;
  T *dgate, *dup, *h;
  float* dweights;
  const int32_t* end;
  int64_t R, F;
};
template <class T>
__global__ void WeightedSwiGluGradientKernel(WeightedSwiGlu<T> a) {
  const int64_t r = WarpIndex();
  if (r >= (a.end == nullptr ? a.R : *a.end)) return;
  const float weight = a.weights == nullptr ? 1.0f : a.weights[r];
  float sum = 0;
  for (int64_t i = r * a.F + LaneIndex(); i < (r + 1) * a.F; i += kWarp) {
    const float g = Get(a.gate[i]), u = Get(a.up[i]), s = Logistic(g);
    const float h = g * s * u, ds = weight * a.product[i] * s;
    Put(a.dgate[i], ds * u * (1.0f + g * (1.0f - s)));
    Put(a.dup[i], ds * g);
    Put(a.h[i], weight * h);
    sum += h * a.product[i];
  }
  sum = WarpSum(sum);
  if (a.dweights != nullptr && LaneIndex() == 0) a.dweights[r] = sum;
}

// A warp for each of the R rows.
template <class T>
__global__ void SoftmaxKernel(const T* z, T* p, int64_t R, int64_t E) {
  const int64_t row = WarpIndex();
  if (row >= R) return;
  z += row * E, p += row * E;
  float max = -INFINITY;
  for (int64_t i = LaneIndex(); i < E; i += kWarp) max = fmaxf(max, Get(z[i]));
  max = WarpReduce(max, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0;
  for (int64_t i = LaneIndex(); i < E; i += kWarp) sum += expf(Get(z[i]) - max);
  const float factor = 1.0f / WarpSum(sum);
  for (int64_t i = LaneIndex(); i < E; i += kWarp) Put(p[i], expf(Get(z[i]) - max) * factor);
}

// A warp for each of the R rows.
template <class T>
__global__ void SoftmaxGradientKernel(const T* p, const T* dp, T* dz, bool accumulate, int64_t R,
                                      int64_t E) {
  const int64_t row = WarpIndex();
  if (row >= R) return;
  p += row * E, dp += row * E, dz += row * E;
  float inner = 0;
  for (int64_t i = LaneIndex(); i < E; i += kWarp) inner += Get(p[i]) * Get(dp[i]);
  inner = WarpSum(inner);
  for (int64_t i = LaneIndex(); i < E; i += kWarp) {
    Put(dz[i], Get(p[i]) * (Get(dp[i]) - inner), accumulate);
  }
}

template <class T>
__global__ void SigmoidKernel(const T* z, T* s, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) Put(s[i], Logistic(Get(z[i])));
}

template <class T>
__global__ void SigmoidGradientKernel(const T* s, const T* ds, T* dz, bool accumulate, int64_t n) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    Put(dz[i], Get(ds[i]) * Get(s[i]) * (1.0f - Get(s[i])), accumulate);
  }
}

}  // namespace

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx) {
  WithType(h.dtype(), [&]<class T>(T) {
    Launch(SwiGluKernel<T>, ForElements(h.size()), ctx, gate.device_data<T>(), up.device_data<T>(),
           h.device_data<T>(), h.size());
  });
}

void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx) {
  WithType(args.dh.dtype(), [&]<class T>(T) {
    Launch(SwiGluGradientKernel<T>, ForElements(args.dh.size()), ctx, args.gate.device_data<T>(),
           args.up.device_data<T>(), args.dh.device_data<T>(), args.dgate.device_data<T>(),
           args.accumulate_dgate, args.dup.device_data<T>(), args.accumulate_dup, args.dh.size());
  });
}

void WeightedSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, const Tensor& product,
                            Context& ctx) {
  const auto [R, F] = Dims<2>(args.gate);
  const Tensor& offsets = args.offsets;
  const int32_t* const end =
      offsets.defined() ? offsets.device_data<int32_t>() + offsets.size() - 1 : nullptr;
  WithType(args.gate.dtype(), [&, R = R, F = F]<class T>(T) {
    const WeightedSwiGlu<T> rows = {.gate = args.gate.device_data<T>(),
                                    .up = args.up.device_data<T>(),
                                    .product = product.device_data<float>(),
                                    .weights = args.weights.device_data<float>(),
                                    .dgate = args.dgate.device_data<T>(),
                                    .dup = args.dup.device_data<T>(),
                                    .h = args.h.device_data<T>(),
                                    .dweights = args.dweights.device_data<float>(),
                                    .end = end,
                                    .R = R,
                                    .F = F};
    Launch(WeightedSwiGluGradientKernel<T>, WarpForEach(R), ctx, rows);
  });
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [R, E] = Dims<2>(z);
  WithType(z.dtype(), [&, R = R, E = E]<class T>(T) {
    Launch(SoftmaxKernel<T>, WarpForEach(R), ctx, z.device_data<T>(), p.device_data<T>(), R, E);
  });
}

void SoftmaxGradient(const kernels::ScoreGradientArgs& args, Context& ctx) {
  const auto [R, E] = Dims<2>(args.y);
  WithType(args.y.dtype(), [&, R = R, E = E]<class T>(T) {
    Launch(SoftmaxGradientKernel<T>, WarpForEach(R), ctx, args.y.device_data<T>(),
           args.dy.device_data<T>(), args.dz.device_data<T>(), args.accumulate, R, E);
  });
}

void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx) {
  WithType(z.dtype(), [&]<class T>(T) {
    Launch(SigmoidKernel<T>, ForElements(z.size()), ctx, z.device_data<T>(), s.device_data<T>(),
           z.size());
  });
}

void SigmoidGradient(const kernels::ScoreGradientArgs& args, Context& ctx) {
  WithType(args.y.dtype(), [&]<class T>(T) {
    Launch(SigmoidGradientKernel<T>, ForElements(args.y.size()), ctx, args.y.device_data<T>(),
           args.dy.device_data<T>(), args.dz.device_data<T>(), args.accumulate, args.y.size());
  });
}

}  // namespace moebius::cuda
