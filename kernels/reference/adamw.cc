#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void AdamW(const kernels::AdamWArgs& args, Context& ctx) {
  const double bias1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
  const double bias2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
  ctx.pool().ForRange(args.value.size(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double &w = args.value.data<double>()[i], &m = args.m.data<double>()[i];
      double& v = args.v.data<double>()[i];
      const double g = args.gradient_scale * args.gradient.data<double>()[i];
      m = args.beta1 * m + (1 - args.beta1) * g;
      v = args.beta2 * v + (1 - args.beta2) * g * g;
      const double update = m / bias1 / (std::sqrt(v / bias2) + args.epsilon);
      w -= args.learning_rate * (update + args.weight_decay * w);
    }
  });
}

}  // namespace moebius::reference
