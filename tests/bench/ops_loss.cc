// The loss: loss/DTYPE/T/D/V is cross-entropy fused with the output product, in chunks, forward and
// backward; its need is the three products, and tokens, head and their gradients once. Beside it
// cross_entropy/F32, the rows of logits alone.
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/tape/tape.h"
#include "kernels/cross_entropy.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/weight_images.h"
#include "tests/bench/device.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

Parameter Head(int64_t V, int64_t D) {
  Parameter head;
  head.name = "head";
  head.value = Filled(DType::kF32, {V, D}, "head");
  head.gradient = Filled(DType::kF32, {V, D}, "head.gradient");
  return head;
}

Tensor Weights(int64_t T) {
  return TensorOf(OpContext(), std::vector(T, 1.0f / static_cast<float>(T)), "weights");
}

void Loss(benchmark::State& state, DType dtype, int64_t T, int64_t D, int64_t V) {
  Context& context = OpContext();
  const Tensor x = Filled(dtype, {T, D}, "x"), weights = Weights(T);
  const Tensor labels = RandomInts(T, V, "labels");
  Parameter head = Head(V, D);
  kernels::ResidentWeights images(context);
  const auto size = static_cast<double>(SizeOf(dtype));
  const auto tokens = static_cast<double>(T * D), table = static_cast<double>(V * D);
  const OpNeed need = {.flops = 6 * tokens * static_cast<double>(V),
                       .bytes = 2 * size * tokens + (2 * size + 4) * table,
                       .dtype = dtype};
  MeasureOp(state, need, [&] {
    head.gradient_written = false;
    Tape tape(context, images);
    ops::CrossEntropyLoss(tape, tape.Input(x), &head, labels, weights);
    tape.Backward();
  });
}

void CrossEntropy(benchmark::State& state, int64_t T, int64_t V) {
  const Tensor logits = Filled(DType::kF32, {T, V}, "logits"), weights = Weights(T);
  const Tensor dlogits = Filled(DType::kF32, {T, V}, "dlogits");
  const Tensor labels = RandomInts(T, V, "labels");
  const Tensor nll = OpContext().Empty(DType::kF64, {T}, "nll");
  MeasureOp(state, [&] {
    kernels::CrossEntropy(
        {.logits = logits, .labels = labels, .weights = weights, .nll = nll, .dlogits = dlogits},
        OpContext());
  });
}

using Shapes = std::vector<std::array<int64_t, 3>>;
Shapes ShapesHere() {
  if (!OnCpu()) return {{8192, 2048, 50304}};
  return {{2048, 256, 8192}, {1024, 1024, 32768}};
}

}  // namespace

void RegisterLoss() {
  const Shapes shapes = ShapesHere();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [T, D, V] : shapes) {
      RegisterOp(absl::StrCat("loss/", NameOf(dtype), "/T:", T, "/D:", D, "/V:", V),
                 [=, T = T, D = D, V = V](auto& state) { Loss(state, dtype, T, D, V); });
    }
  }
  RegisterOp("cross_entropy/F32", [](auto& state) { CrossEntropy(state, 2048, 8192); });
}

}  // namespace moebius
