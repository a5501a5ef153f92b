#include <algorithm>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // elements of a task

template <class T>
MOEBIUS_CLONES void SwiGluRange(const T* gate, const T* up, T* h, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(h[i], Get(gate[i]) * Logistic(Get(gate[i])) * Get(up[i]));
}

template <class T>
MOEBIUS_CLONES void SwiGluGradientRange(const T* gate, const T* up, const T* dh, T* dgate,
                                        bool accumulate_dgate, T* dup, bool accumulate_dup,
                                        int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = Get(gate[i]), u = Get(up[i]), d = Get(dh[i]), s = Logistic(g);
    Put(dgate[i], d * u * s * (1.0f + g * (1.0f - s)), accumulate_dgate);
    Put(dup[i], d * g * s, accumulate_dup);
  }
}

template <class T>
MOEBIUS_CLONES void SoftmaxRows(const T* z, T* p, int64_t R, int64_t E) {
  for (; R > 0; --R, z += E, p += E) {
    float max = Get(z[0]);
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < E; ++i) max = Get(z[i]) > max ? Get(z[i]) : max;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < E; ++i) sum += Exp(Get(z[i]) - max);
    const float factor = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < E; ++i) Put(p[i], Exp(Get(z[i]) - max) * factor);
  }
}

template <class T>
MOEBIUS_CLONES void SoftmaxGradientRows(const T* p, const T* dp, T* dz, bool accumulate, int64_t R,
                                        int64_t E) {
  for (; R > 0; --R, p += E, dp += E, dz += E) {
    float inner = 0;
#pragma omp simd reduction(+ : inner)
    for (int64_t i = 0; i < E; ++i) inner += Get(p[i]) * Get(dp[i]);
#pragma omp simd
    for (int64_t i = 0; i < E; ++i) Put(dz[i], Get(p[i]) * (Get(dp[i]) - inner), accumulate);
  }
}

template <class T>
MOEBIUS_CLONES void SigmoidRange(const T* z, T* s, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Put(s[i], Logistic(Get(z[i])));
}

template <class T>
MOEBIUS_CLONES void SigmoidGradientRange(const T* s, const T* ds, T* dz, bool accumulate,
                                         int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    Put(dz[i], Get(ds[i]) * Get(s[i]) * (1.0f - Get(s[i])), accumulate);
}

int64_t RowGrain(int64_t width) { return std::max<int64_t>(1, kGrain / width); }

}  // namespace

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx) {
  WithType(h.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(h.size(), kGrain, [&](int64_t i, int64_t end) {
      SwiGluRange(gate.data<T>() + i, up.data<T>() + i, h.data<T>() + i, end - i);
    });
  });
}

void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx) {
  WithType(args.dh.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(args.dh.size(), kGrain, [&](int64_t i, int64_t end) {
      SwiGluGradientRange(args.gate.data<T>() + i, args.up.data<T>() + i, args.dh.data<T>() + i,
                          args.dgate.data<T>() + i, args.accumulate_dgate, args.dup.data<T>() + i,
                          args.accumulate_dup, end - i);
    });
  });
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [R, E] = Dims<2>(z);
  WithType(z.dtype(), [&, R = R, E = E](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, RowGrain(E), [&](int64_t r, int64_t end) {
      SoftmaxRows(z.data<T>() + r * E, p.data<T>() + r * E, end - r, E);
    });
  });
}

void SoftmaxGradient(const kernels::ScoreGradientArgs& args, Context& ctx) {
  const auto [R, E] = Dims<2>(args.y);
  WithType(args.y.dtype(), [&, R = R, E = E](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, RowGrain(E), [&](int64_t r, int64_t end) {
      SoftmaxGradientRows(args.y.data<T>() + r * E, args.dy.data<T>() + r * E,
                          args.dz.data<T>() + r * E, args.accumulate, end - r, E);
    });
  });
}

void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx) {
  WithType(z.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(z.size(), kGrain, [&](int64_t i, int64_t end) {
      SigmoidRange(z.data<T>() + i, s.data<T>() + i, end - i);
    });
  });
}

void SigmoidGradient(const kernels::ScoreGradientArgs& args, Context& ctx) {
  WithType(args.y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(args.y.size(), kGrain, [&](int64_t i, int64_t end) {
      SigmoidGradientRange(args.y.data<T>() + i, args.dy.data<T>() + i, args.dz.data<T>() + i,
                           args.accumulate, end - i);
    });
  });
}

}  // namespace moebius::cpu
