#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void Rotary(const kernels::RotaryArgs& args, Context& ctx) {
  const auto [T, W] = Dims<2>(args.x);
  const int64_t C = args.head_dim, half = C / 2;
  ctx.pool().ForRange(T, 16, [&, W = W](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < half; ++i) {
        const double frequency =
            std::pow(args.theta, -2.0 * static_cast<double>(i) / static_cast<double>(C));
        const double angle =
            (args.inverse ? -1 : 1) * args.positions.data<int32_t>()[t] * frequency;
        const double cos = std::cos(angle), sin = std::sin(angle);
        for (int64_t head = t * W; head < (t + 1) * W; head += C) {
          const double* x = args.x.data<double>() + head;
          double* y = args.y.data<double>() + head;
          const double first = x[i] * cos - x[i + half] * sin;
          const double second = x[i + half] * cos + x[i] * sin;
          y[i] = args.accumulate ? y[i] + first : first;
          y[i + half] = args.accumulate ? y[i + half] + second : second;
        }
      }
    }
  });
}

}  // namespace moebius::reference
