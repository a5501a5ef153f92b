// Ops that move bytes, over tensors far larger than the caches: OP/DTYPE. Their limit is the
// bandwidth. adamw.images is the update that writes the images that products in DTYPE read.
#include <functional>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/activations.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/weight_images.h"
#include "tests/bench/device.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

constexpr int64_t kRows = 16384, kWidth = 2048, kHeadDim = 64, kVocabulary = 32768;
constexpr double kEpsilon = 1e-5;

Tensor Matrix(DType dtype, const char* name) { return Filled(dtype, {kRows, kWidth}, name); }

void RmsNorm(benchmark::State& state, DType dtype) {
  const Tensor x = Matrix(dtype, "x"), y = Matrix(dtype, "y");
  const Tensor w = Filled(DType::kF32, {kWidth}, "w");
  MeasureOp(state, [&] { kernels::RmsNorm(x, w, kEpsilon, y, OpContext()); });
}

void RmsNormInputGradient(benchmark::State& state, DType dtype) {
  const Tensor x = Matrix(dtype, "x"), dy = Matrix(dtype, "dy"), dx = Matrix(dtype, "dx");
  const Tensor w = Filled(DType::kF32, {kWidth}, "w");
  MeasureOp(state, [&] {
    kernels::RmsNormInputGradient(
        {.dy = dy, .x = x, .w = w, .epsilon = kEpsilon, .dx = dx, .accumulate = false},
        OpContext());
  });
}

void RmsNormWeightGradient(benchmark::State& state, DType dtype) {
  const Tensor x = Matrix(dtype, "x"), dy = Matrix(dtype, "dy");
  const Tensor dw = Filled(DType::kF32, {kWidth}, "dw");
  MeasureOp(state, [&] {
    kernels::RmsNormWeightGradient(
        {.dy = dy, .x = x, .epsilon = kEpsilon, .dw = dw, .accumulate = false}, OpContext());
  });
}

void Rotary(benchmark::State& state, DType dtype) {
  const Tensor x = Matrix(dtype, "x"), y = Matrix(dtype, "y");
  std::vector<int32_t> numbers(kRows);
  std::iota(numbers.begin(), numbers.end(), 0);
  const Tensor positions = TensorOf(OpContext(), numbers, "positions");
  MeasureOp(state, [&] {
    kernels::Rotary({.x = x, .positions = positions, .head_dim = kHeadDim, .theta = 10000, .y = y},
                    OpContext());
  });
}

void SwiGlu(benchmark::State& state, DType dtype) {
  const Tensor gate = Matrix(dtype, "gate"), up = Matrix(dtype, "up"), h = Matrix(dtype, "h");
  MeasureOp(state, [&] { kernels::SwiGlu(gate, up, h, OpContext()); });
}

void SwiGluGradient(benchmark::State& state, DType dtype) {
  const Tensor gate = Matrix(dtype, "gate"), up = Matrix(dtype, "up"), dh = Matrix(dtype, "dh");
  const Tensor dgate = Matrix(dtype, "dgate"), dup = Matrix(dtype, "dup");
  MeasureOp(state, [&] {
    kernels::SwiGluGradient({.gate = gate,
                             .up = up,
                             .dh = dh,
                             .dgate = dgate,
                             .accumulate_dgate = false,
                             .dup = dup,
                             .accumulate_dup = false},
                            OpContext());
  });
}

void Add(benchmark::State& state, DType dtype) {
  const Tensor a = Matrix(dtype, "a"), b = Matrix(dtype, "b"), y = Matrix(dtype, "y");
  MeasureOp(state, [&] { kernels::Add(a, b, y, OpContext()); });
}

void Embedding(benchmark::State& state, DType dtype) {
  const Tensor tokens = RandomInts(kRows, kVocabulary, "tokens"), y = Matrix(dtype, "y");
  const Tensor w = Filled(DType::kF32, {kVocabulary, kWidth}, "w");
  const auto bytes = static_cast<double>(kRows * kWidth * (SizeOf(DType::kF32) + SizeOf(dtype)));
  MeasureOp(state, {.bytes = bytes},
            [&] { kernels::Embedding({.tokens = tokens, .w = w, .y = y}, OpContext()); });
}

// The whole table's gradient is written, and rows that have tokens a second time at least. Tokens
// are `num_tokens` different ones at most.
void EmbeddingGradient(benchmark::State& state, DType dtype, int64_t num_tokens) {
  const Tensor tokens = RandomInts(kRows, num_tokens, "tokens"), dy = Matrix(dtype, "dy");
  const Tensor dw = Filled(DType::kF32, {kVocabulary, kWidth}, "dw");
  MeasureOp(state, {.bytes = static_cast<double>(dy.bytes() + dw.bytes())}, [&] {
    kernels::EmbeddingGradient({.tokens = tokens, .dy = dy, .dw = dw, .accumulate = false},
                               OpContext());
  });
}

void SumOfSquares(benchmark::State& state, DType dtype) {
  const Tensor x = Matrix(dtype, "x"), sum = OpContext().Empty(DType::kF64, {1}, "sum");
  MeasureOp(state, [&] { kernels::SumOfSquares(x, sum, OpContext()); });
}

// Of a weight whose images are in `image_dtypes`.
void AdamW(benchmark::State& state, const std::vector<DType>& image_dtypes) {
  const Tensor w = Matrix(DType::kF32, "w"), gradient = Matrix(DType::kF32, "gradient");
  const Tensor m = OpContext().Zeros(DType::kF32, w.shape(), "m");
  const Tensor v = OpContext().Zeros(DType::kF32, w.shape(), "v");
  Parameter weight;
  weight.value = w;
  kernels::ResidentWeights weights(OpContext());
  for (const DType dtype : image_dtypes) {
    for (const WeightFormat format : {WeightFormat::kPacked, WeightFormat::kPackedTransposed}) {
      weights.Lease(weight, format, dtype);
    }
  }
  std::vector<kernels::AdamWArgs::Image> images;
  for (const auto& [key, image] : weight.images) images.push_back({key.first, image.tensor});
  OpContext().BeginStep(10, 1e-4);
  MeasureOp(state, [&] {
    kernels::AdamW({.value = w,
                    .gradient = gradient,
                    .m = m,
                    .v = v,
                    .state = OpContext().step_state(),
                    .beta1 = 0.9,
                    .beta2 = 0.95,
                    .epsilon = 1e-8,
                    .weight_decay = 0.1,
                    .images = images},
                   OpContext());
  });
}

}  // namespace

void RegisterMemoryOps() {
  using Op = void (*)(benchmark::State&, DType);
  constexpr std::pair<const char*, Op> kOps[] = {
      {"rms_norm", RmsNorm},
      {"rms_norm.gradient", RmsNormInputGradient},
      {"rms_norm.weight_gradient", RmsNormWeightGradient},
      {"rotary", Rotary},
      {"swiglu", SwiGlu},
      {"swiglu.gradient", SwiGluGradient},
      {"add", Add},
      {"embedding", Embedding},
      {"sum_of_squares", SumOfSquares}};
  for (const auto& [name, op] : kOps) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      RegisterOp(absl::StrCat(name, "/", NameOf(dtype)),
                 [=, op = op](auto& state) { op(state, dtype); });
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    RegisterOp(absl::StrCat("embedding.gradient/", NameOf(dtype)),
               [=](auto& state) { EmbeddingGradient(state, dtype, kVocabulary); });
    RegisterOp(absl::StrCat("embedding.gradient.one_token/", NameOf(dtype)),
               [=](auto& state) { EmbeddingGradient(state, dtype, 1); });
  }
  RegisterOp("adamw/F32", [](auto& state) { AdamW(state, {}); });
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    RegisterOp(absl::StrCat("adamw.images/", NameOf(dtype)),
               [dtype](auto& state) { AdamW(state, {dtype}); });
  }
}

}  // namespace moebius
