#include <algorithm>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rows.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // elements of a task

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
  const Write write = WriteOf(h, h.size());
  WithRows(h.dtype(), [&](const auto& rows, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, h.size(), kGrain, [&](int64_t i, int64_t end) {
      rows.swiglu(At<T>(gate, i), At<T>(up, i), At<T>(h, i), write, end - i);
    });
  });
}

void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx) {
  const Write write_dgate = WriteOf(args.dgate, args.dgate.size(), args.accumulate_dgate);
  const Write write_dup = WriteOf(args.dup, args.dup.size(), args.accumulate_dup);
  WithRows(args.dh.dtype(), [&](const auto& rows, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, args.dh.size(), kGrain, [&](int64_t i, int64_t end) {
      rows.swiglu_gradient({.gate = At<T>(args.gate, i),
                            .up = At<T>(args.up, i),
                            .dh = At<T>(args.dh, i),
                            .dgate = At<T>(args.dgate, i),
                            .write_dgate = write_dgate,
                            .dup = At<T>(args.dup, i),
                            .write_dup = write_dup},
                           end - i);
    });
  });
}

void Softmax(const Tensor& z, const Tensor& p, Context& ctx) {
  const auto [R, E] = Dims<2>(z);
  WithRows(z.dtype(), [&, R = R, E = E](const auto& rows, auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, RowGrain(E), [&](int64_t r, int64_t end) {
      rows.softmax(At<T>(z, r * E), At<T>(p, r * E), end - r, E);
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
