#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rows.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 16;  // tokens of a task

// Cosines and sines of position * frequency: the angle is brought to [-pi, pi] in double, where
// floats are enough.
MOEBIUS_CLONES void Turns(double position, const double* frequency, float* cos, float* sin,
                          int64_t half) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    constexpr double kTwoPi = 6.283185307179586, kRound = 6755399441055744.0;  // 1.5 * 2^52
    const double angle = position * frequency[i];
    const double turns = (angle * (1 / kTwoPi) + kRound) - kRound;
    // Of half the angle, which lies in [-pi/2, pi/2]: Taylor series, below 1e-8 there.
    const double h = 0.5 * (angle - turns * kTwoPi), h2 = h * h;
    double s = -1.0 / 1307674368000;
    s = s * h2 + 1.0 / 6227020800;
    s = s * h2 - 1.0 / 39916800;
    s = s * h2 + 1.0 / 362880;
    s = s * h2 - 1.0 / 5040;
    s = s * h2 + 1.0 / 120;
    s = s * h2 - 1.0 / 6;
    s = s * h2 * h + h;
    double c = 1.0 / 20922789888000;
    c = c * h2 - 1.0 / 87178291200;
    c = c * h2 + 1.0 / 479001600;
    c = c * h2 - 1.0 / 3628800;
    c = c * h2 + 1.0 / 40320;
    c = c * h2 - 1.0 / 720;
    c = c * h2 + 1.0 / 24;
    c = c * h2 - 0.5;
    c = c * h2 + 1.0;
    sin[i] = static_cast<float>(2 * s * c);
    cos[i] = static_cast<float>(1 - 2 * s * s);
  }
}

}  // namespace

void Rotary(const kernels::RotaryArgs& args, Context& ctx) {
  const auto [T, W] = Dims<2>(args.x);
  const int64_t C = args.head_dim, half = C / 2;
  std::vector<double> frequency(half);
  for (int64_t i = 0; i < half; ++i) {
    frequency[i] = std::pow(args.theta, -2.0 * static_cast<double>(i) / static_cast<double>(C));
    if (args.inverse) frequency[i] = -frequency[i];
  }
  WithRows(args.x.dtype(), [&, T = T, W = W](const auto& rows, auto zero) {
    using Element = decltype(zero);
    ctx.pool().ForRange(T, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> cos(half), sin(half);
      for (int64_t t = begin; t < end; ++t) {
        Turns(args.positions.data<int32_t>()[t], frequency.data(), cos.data(), sin.data(), half);
        rows.turn({.x = At<Element>(args.x, t * W),
                   .cos = cos.data(),
                   .sin = sin.data(),
                   .y = At<Element>(args.y, t * W),
                   .write = args.accumulate ? Write::kAdd : Write::kReplace,
                   .heads = W / C,
                   .half = half});
      }
    });
  });
}

}  // namespace moebius::cpu
