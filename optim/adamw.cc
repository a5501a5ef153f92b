#include "optim/adamw.h"

#include "kernels/adamw.h"

namespace moebius {

AdamW::AdamW(const AdamWSpec& spec, const std::vector<Parameter*>& parameters, Context& context)
    : spec_(spec), context_(context) {
  for (Parameter* parameter : parameters) {
    const DType dtype = parameter->value.dtype();
    const Shape& shape = parameter->value.shape();
    states_.push_back({parameter, context.Zeros(dtype, shape, "optimizer.m"),
                       context.Zeros(dtype, shape, "optimizer.v")});
  }
}

void AdamW::Step() {
  const StepState& step = context_.step();
  for (State& state : states_) {
    Parameter& parameter = *state.parameter;
    kernels::AdamW({.value = parameter.value,
                    .gradient = parameter.gradient,
                    .m = state.m,
                    .v = state.v,
                    .learning_rate = step.learning_rate,
                    .beta1 = spec_.beta1,
                    .beta2 = spec_.beta2,
                    .epsilon = spec_.epsilon,
                    .weight_decay = parameter.weight_decay ? spec_.weight_decay : 0,
                    .step = step.step,
                    .gradient_scale = step.clip_scale},
                   context_);
    ++parameter.version;
  }
}

}  // namespace moebius
