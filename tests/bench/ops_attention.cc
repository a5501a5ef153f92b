// Causal attention: attention/PASS/DTYPE/B/S/H/G/C. Operations are those of the causal half: two
// products forward, five backward.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

using kernels::AttentionShape;

struct Operands {
  Operands(DType dtype, const AttentionShape& shape)
      : q(Queries(dtype, shape, "q")),
        y(Queries(dtype, shape, "y")),
        dy(Queries(dtype, shape, "dy")),
        dq(Queries(dtype, shape, "dq")),
        k(Keys(dtype, shape, "k")),
        v(Keys(dtype, shape, "v")),
        dk(Keys(dtype, shape, "dk")),
        dv(Keys(dtype, shape, "dv")),
        logsumexp(OpContext().Empty(
            DType::kF32, {shape.num_sequences * shape.sequence_length, shape.num_heads}, "sums")) {}

  static Tensor Queries(DType dtype, const AttentionShape& shape, const char* name) {
    return Filled(dtype,
                  {shape.num_sequences * shape.sequence_length, shape.num_heads * shape.head_dim},
                  name);
  }
  static Tensor Keys(DType dtype, const AttentionShape& shape, const char* name) {
    return Filled(
        dtype, {shape.num_sequences * shape.sequence_length, shape.num_kv_heads * shape.head_dim},
        name);
  }

  Tensor q, y, dy, dq, k, v, dk, dv, logsumexp;
};

void RunForward(const AttentionShape& shape, const Operands& at) {
  kernels::Attention(
      {.shape = shape, .q = at.q, .k = at.k, .v = at.v, .y = at.y, .logsumexp = at.logsumexp},
      OpContext());
}

void Forward(benchmark::State& state, DType dtype, const AttentionShape& shape) {
  const Operands at(dtype, shape);
  MeasureOp(state, [&] { RunForward(shape, at); });
}

void Gradient(benchmark::State& state, DType dtype, const AttentionShape& shape) {
  const Operands at(dtype, shape);
  RunForward(shape, at);
  MeasureOp(state, [&] {
    kernels::AttentionGradient({.shape = shape,
                                .q = at.q,
                                .k = at.k,
                                .v = at.v,
                                .y = at.y,
                                .logsumexp = at.logsumexp,
                                .dy = at.dy,
                                .dq = at.dq,
                                .dk = at.dk,
                                .dv = at.dv},
                               OpContext());
  });
}

// On a GPU: OLMoE-1B-7B, Qwen3-30B-A3B, and the latter's over one long sequence.
std::vector<AttentionShape> ShapesHere() {
  if (!OnCpu()) return {{8, 4096, 16, 16, 128}, {8, 4096, 32, 4, 128}, {1, 32768, 32, 4, 128}};
  return {{8, 256, 4, 4, 64}, {4, 512, 8, 4, 64}, {1, 2048, 8, 4, 64}, {1, 8192, 4, 2, 64}};
}

}  // namespace

void RegisterAttention() {
  const std::vector<AttentionShape> shapes = ShapesHere();
  using Run = void (*)(benchmark::State&, DType, const AttentionShape&);
  constexpr std::pair<const char*, Run> kPasses[] = {{"forward", Forward}, {"gradient", Gradient}};
  for (const auto& [name, run] : kPasses) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const AttentionShape& shape : shapes) {
        RegisterOp(absl::StrCat("attention/", name, "/", NameOf(dtype), "/B:", shape.num_sequences,
                                "/S:", shape.sequence_length, "/H:", shape.num_heads,
                                "/G:", shape.num_kv_heads, "/C:", shape.head_dim),
                   [=, run = run](auto& state) { run(state, dtype, shape); });
      }
    }
  }
}

}  // namespace moebius
