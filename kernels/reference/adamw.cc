#include <cmath>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void AdamW(const kernels::AdamWArgs& args, Context& ctx) {
  const double* const state = args.state.data<double>();
  if (state[StepState::kUpdates] == 0) return;
  const double bias1 = 1 - std::pow(args.beta1, state[StepState::kStep]);
  const double bias2 = 1 - std::pow(args.beta2, state[StepState::kStep]);
  const double learning_rate = state[StepState::kLearningRate];
  ctx.pool().ForRange(args.value.size(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double &w = args.value.data<double>()[i], &m = args.m.data<double>()[i];
      double& v = args.v.data<double>()[i];
      const double g = state[StepState::kClipScale] * args.gradient.data<double>()[i];
      m = args.beta1 * m + (1 - args.beta1) * g;
      v = args.beta2 * v + (1 - args.beta2) * g * g;
      const double update = m / bias1 / (std::sqrt(v / bias2) + args.epsilon);
      w -= learning_rate * (update + args.weight_decay * w);
    }
  });
}

}  // namespace moebius::reference
