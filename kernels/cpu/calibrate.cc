#include "kernels/cpu/calibrate.h"

#include <algorithm>
#include <chrono>

#include "kernels/cpu/simd.h"

namespace moebius::cpu {
namespace {

constexpr int kSamples = 5;

// The best of a few samples, in units of `work` a second.
template <class Fn>
double BestRate(double work, const Fn& fn) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < kSamples; ++i) {
    const auto start = Clock::now();
    fn();
    best = std::max(best, work / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace

double PeakFlops(DType dtype, Context& context) {
  const SimdKernels& simd = Simd();
  const auto multiply_adds = dtype == DType::kBF16 && simd.multiply_adds_bf16 != nullptr
                                 ? simd.multiply_adds_bf16
                                 : simd.multiply_adds;
  const int64_t threads = context.pool().num_threads();
  // Sized by a first guess, so that a slow processor does not wait longer.
  constexpr int64_t kFirst = 100'000;
  constexpr double kSeconds = 0.01;
  const double first = multiply_adds(1);
  const double rate = BestRate(static_cast<double>(kFirst), [&] { (void)multiply_adds(kFirst); });
  const auto iterations = static_cast<int64_t>(kSeconds * rate) + 1;
  const double peak = BestRate(first * static_cast<double>(iterations * threads), [&] {
    context.pool().For(threads, [&](int64_t) { (void)multiply_adds(iterations); });
  });
  return dtype == DType::kF64 ? peak / 2 : peak;
}

double TriadBandwidth(Context& context) {
  constexpr int64_t kFloats = int64_t{12} << 20, kGrain = int64_t{1} << 16;
  const Tensor a = context.Zeros(DType::kF32, {kFloats}, "calibrate");
  const Tensor b = context.Zeros(DType::kF32, {kFloats}, "calibrate");
  const Tensor c = context.Zeros(DType::kF32, {kFloats}, "calibrate");
  return BestRate(3.0 * sizeof(float) * kFloats, [&] {
    context.pool().ForRange(kFloats, kGrain, [&](int64_t begin, int64_t end) {
      float* __restrict to = a.data<float>();
      const float *x = b.data<float>(), *y = c.data<float>();
      for (int64_t i = begin; i < end; ++i) to[i] = x[i] + 3 * y[i];
    });
  });
}

}  // namespace moebius::cpu
