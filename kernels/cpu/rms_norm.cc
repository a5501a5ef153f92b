#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16384;          // elements of a task
constexpr int64_t kBlockElements = 65536;  // of a partial sum of the weight gradient

template <class T>
MOEBIUS_INLINE float ReciprocalRms(const T* x, int64_t C, float epsilon) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += Get(x[c]) * Get(x[c]);
  return 1.0f / std::sqrt(sum / static_cast<float>(C) + epsilon);
}

template <class T>
MOEBIUS_CLONES void Normalize(const T* x, const float* w, float epsilon, T* y, int64_t R,
                              int64_t C) {
  for (; R > 0; --R, x += C, y += C) {
    const float rstd = ReciprocalRms(x, C, epsilon);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) Put(y[c], Get(x[c]) * rstd * w[c]);
  }
}

template <class T>
MOEBIUS_CLONES void InputGradient(const T* dy, const T* x, const float* w, float epsilon, T* dx,
                                  bool accumulate, int64_t R, int64_t C) {
  for (; R > 0; --R, dy += C, x += C, dx += C) {
    const float rstd = ReciprocalRms(x, C, epsilon);
    float inner = 0;
#pragma omp simd reduction(+ : inner)
    for (int64_t c = 0; c < C; ++c) inner += Get(dy[c]) * w[c] * Get(x[c]);
    const float along_x = inner * rstd * rstd / static_cast<float>(C);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c)
      Put(dx[c], rstd * (Get(dy[c]) * w[c] - Get(x[c]) * along_x), accumulate);
  }
}

template <class T>
MOEBIUS_CLONES void AddWeightGradient(const T* dy, const T* x, float epsilon, float* dw, int64_t R,
                                      int64_t C) {
  for (; R > 0; --R, dy += C, x += C) {
    const float rstd = ReciprocalRms(x, C, epsilon);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) dw[c] += Get(dy[c]) * Get(x[c]) * rstd;
  }
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx) {
  const int64_t C = w.size();
  WithType(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(x.size() / C, std::max<int64_t>(1, kGrain / C),
                        [&](int64_t r, int64_t end) {
                          Normalize(x.data<T>() + r * C, w.data<float>(),
                                    static_cast<float>(epsilon), y.data<T>() + r * C, end - r, C);
                        });
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const int64_t C = args.w.size(), grain = std::max<int64_t>(1, kGrain / C);
  WithType(args.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(args.x.size() / C, grain, [&](int64_t r, int64_t end) {
      InputGradient(args.dy.data<T>() + r * C, args.x.data<T>() + r * C, args.w.data<float>(),
                    static_cast<float>(args.epsilon), args.dx.data<T>() + r * C, args.accumulate,
                    end - r, C);
    });
  });
}

void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx) {
  const int64_t C = args.dw.size(), R = args.x.size() / C;
  const int64_t block = std::max<int64_t>(1, kBlockElements / C);
  const int64_t num_blocks = (R + block - 1) / block;
  const Tensor partial = ctx.Zeros(DType::kF32, {num_blocks, C}, "rms_norm.partial");
  WithType(args.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ctx.pool().ForRange(R, block, [&](int64_t r, int64_t end) {
      AddWeightGradient(args.dy.data<T>() + r * C, args.x.data<T>() + r * C,
                        static_cast<float>(args.epsilon), partial.data<float>() + r / block * C,
                        end - r, C);
    });
  });
  float* dw = args.dw.data<float>();
  if (!args.accumulate) std::fill_n(dw, C, 0.0f);
  for (int64_t b = 0; b < num_blocks; ++b)
    for (int64_t c = 0; c < C; ++c) dw[c] += partial.data<float>()[b * C + c];
}

}  // namespace moebius::cpu
