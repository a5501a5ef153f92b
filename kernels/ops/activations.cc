#include "kernels/ops/activations.h"

#include "kernels/activations.h"

namespace moebius::ops {

Var SwiGlu(Tape& tape, const Var& gate, const Var& up) {
  const Tensor h = tape.context().Empty(gate.dtype(), gate.shape(), "swiglu.h");
  kernels::SwiGlu(gate.value(), up.value(), h, tape.context());

  const Saved saved_gate = tape.Save(gate.value(), "swiglu.gate");
  const Saved saved_up = tape.Save(up.value(), "swiglu.up");
  return tape.Record(h, [=, gate = gate.id(), up = up.id()](Tape& tape, const Tensor& dh) {
    const GradientSlot dgate = tape.Gradient(gate), dup = tape.Gradient(up);
    kernels::SwiGluGradient({.gate = tape.Load(saved_gate),
                             .up = tape.Load(saved_up),
                             .dh = dh,
                             .dgate = dgate.tensor,
                             .accumulate_dgate = dgate.accumulate,
                             .dup = dup.tensor,
                             .accumulate_dup = dup.accumulate},
                            tape.context());
  });
}

Var Softmax(Tape& tape, const Var& z) {
  const Tensor p = tape.context().Empty(z.dtype(), z.shape(), "softmax.p");
  kernels::Softmax(z.value(), p, tape.context());

  const Saved saved_p = tape.Save(p, "softmax.p");
  return tape.Record(p, [=, z = z.id()](Tape& tape, const Tensor& dp) {
    const GradientSlot dz = tape.Gradient(z);
    kernels::SoftmaxGradient(
        {.y = tape.Load(saved_p), .dy = dp, .dz = dz.tensor, .accumulate = dz.accumulate},
        tape.context());
  });
}

Var Sigmoid(Tape& tape, const Var& z) {
  const Tensor s = tape.context().Empty(z.dtype(), z.shape(), "sigmoid.s");
  kernels::Sigmoid(z.value(), s, tape.context());

  const Saved saved_s = tape.Save(s, "sigmoid.s");
  return tape.Record(s, [=, z = z.id()](Tape& tape, const Tensor& ds) {
    const GradientSlot dz = tape.Gradient(z);
    kernels::SigmoidGradient(
        {.y = tape.Load(saved_s), .dy = ds, .dz = dz.tensor, .accumulate = dz.accumulate},
        tape.context());
  });
}

}  // namespace moebius::ops
