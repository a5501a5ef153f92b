#include "core/tensor/context.h"

#include "core/tensor/copy.h"

namespace moebius {

Tensor Context::Empty(DType dtype, const Shape& shape, const char* name, MemoryTier tier) {
  return Tensor(dtype, shape, arena(tier).Allocate(shape.num_elements() * SizeOf(dtype), name));
}

Tensor Context::Zeros(DType dtype, const Shape& shape, const char* name, MemoryTier tier) {
  Tensor x = Empty(dtype, shape, name, tier);
  Clear(x);
  return x;
}

void Context::BeginStep(int64_t step, double learning_rate) {
  learning_rate_ = learning_rate;
  if (!step_state_.defined()) step_state_ = Zeros(DType::kF64, {StepState::kSize}, "step_state");
  if (device_.is_meta()) return;
  const Tensor host = HostSide(step_state_, *this);
  double* const numbers = host.data<double>();
  numbers[StepState::kStep] = static_cast<double>(step);
  numbers[StepState::kLearningRate] = learning_rate;
  numbers[StepState::kClipScale] = numbers[StepState::kUpdates] = 1;
  numbers[StepState::kLoss] = numbers[StepState::kGradientNorm] = 0;
  Copy(host, step_state_);
}

}  // namespace moebius
