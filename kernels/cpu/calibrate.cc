#include "kernels/cpu/calibrate.h"

#include <algorithm>
#include <chrono>

#include "kernels/cpu/simd.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace moebius::cpu {
namespace {

// The best of `samples` runs, in units of `work` a second: of many short ones some are undisturbed.
template <class Fn>
double BestRate(int samples, double work, const Fn& fn) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < samples; ++i) {
    const auto start = Clock::now();
    fn();
    best = std::max(best, work / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// a = b + 3 c, past the caches: an ordinary store would first read what it overwrites. Pointers are
// aligned to 64 bytes, n is a multiple of 16.
void Triad(float* __restrict a, const float* b, const float* c, int64_t n) {
#if defined(__SSE2__)
  const __m128 three = _mm_set1_ps(3);
  for (int64_t i = 0; i < n; i += 4) {
    _mm_stream_ps(a + i, _mm_add_ps(_mm_load_ps(b + i), _mm_mul_ps(three, _mm_load_ps(c + i))));
  }
  _mm_sfence();
#else
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 3 * c[i];
#endif
}

}  // namespace

std::string InstructionSet() { return Simd().name; }

double PeakFlops(DType dtype, Context& context) {
  const SimdKernels& simd = Simd();
  const auto multiply_adds = dtype == DType::kBF16 && simd.multiply_adds_bf16 != nullptr
                                 ? simd.multiply_adds_bf16
                                 : simd.multiply_adds;
  const int64_t threads = context.pool().num_threads();
  // Sized by a first guess, so that a slow processor does not wait longer.
  constexpr int64_t kFirst = 100'000;
  constexpr int kFirstSamples = 5, kSamples = 50;
  constexpr double kSeconds = 0.001;
  const double first = multiply_adds(1);
  const double rate =
      BestRate(kFirstSamples, static_cast<double>(kFirst), [&] { (void)multiply_adds(kFirst); });
  const auto iterations = static_cast<int64_t>(kSeconds * rate) + 1;
  const double peak = BestRate(kSamples, first * static_cast<double>(iterations * threads), [&] {
    context.pool().For(threads, [&](int64_t) { (void)multiply_adds(iterations); });
  });
  return dtype == DType::kF64 ? peak / 2 : peak;
}

double TriadBandwidth(Context& context) {
  // A run takes one part, and finds it in memory: the others have passed through the caches since.
  constexpr int64_t kParts = 12, kFloats = int64_t{1} << 20, kGrain = int64_t{1} << 16;
  constexpr int kSamples = 5 * kParts;
  const Tensor a = context.Zeros(DType::kF32, {kParts, kFloats}, "calibrate");
  const Tensor b = context.Zeros(DType::kF32, {kParts, kFloats}, "calibrate");
  const Tensor c = context.Zeros(DType::kF32, {kParts, kFloats}, "calibrate");
  int64_t part = 0;
  return BestRate(kSamples, 3.0 * sizeof(float) * kFloats, [&] {
    const int64_t offset = part++ % kParts * kFloats;
    context.pool().ForRange(kFloats, kGrain, [&](int64_t begin, int64_t end) {
      const int64_t at = offset + begin;
      Triad(a.data<float>() + at, b.data<float>() + at, c.data<float>() + at, end - begin);
    });
  });
}

}  // namespace moebius::cpu
