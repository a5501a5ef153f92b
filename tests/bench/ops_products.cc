// Products of all rows with one matrix: linear/PASS/DTYPE/R/N/K, and beside each onednn/PASS/...
// or, on a GPU, cublas/PASS/...
#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/linear.h"
#include "kernels/weight_images.h"
#include "tests/bench/onednn.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

struct Sizes {
  DType dtype;
  int64_t R, N, K;

  OpNeed need(DType of_weight) const {
    return {.flops = 2.0 * static_cast<double>(R * N * K),
            .bytes = static_cast<double>(SizeOf(dtype) * R * (N + K) + SizeOf(of_weight) * N * K),
            .dtype = dtype};
  }
};

struct Operands {
  explicit Operands(const Sizes& sizes)
      : x(Filled(sizes.dtype, {sizes.R, sizes.K}, "x")),
        y(Filled(sizes.dtype, {sizes.R, sizes.N}, "y")),
        w(Filled(DType::kF32, {sizes.N, sizes.K}, "w")) {}
  Tensor x, y, w;  // or their gradients
};

void Forward(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  const Tensor image = kernels::MakeWeightImage(at.w, WeightFormat::kPacked, sizes.dtype, context);
  MeasureOp(state, sizes.need(sizes.dtype),
            [&] { kernels::Linear({.x = at.x, .w = image, .y = at.y}, context); });
}

void InputGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  const Tensor image =
      kernels::MakeWeightImage(at.w, WeightFormat::kPackedTransposed, sizes.dtype, context);
  MeasureOp(state, sizes.need(sizes.dtype),
            [&] { kernels::LinearInputGradient({.dy = at.y, .w = image, .dx = at.x}, context); });
}

void WeightGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  MeasureOp(state, sizes.need(DType::kF32),
            [&] { kernels::LinearWeightGradient({.dy = at.y, .x = at.x, .dw = at.w}, context); });
}

void OneDnnForward(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto product = OneDnnProduct::Forward(at.x, at.w, at.y, OpContext());
  MeasureOp(state, sizes.need(sizes.dtype), [&] { product.Run(); });
}

void OneDnnInputGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto product = OneDnnProduct::InputGradient(at.y, at.w, at.x, OpContext());
  MeasureOp(state, sizes.need(sizes.dtype), [&] { product.Run(); });
}

void OneDnnWeightGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto product = OneDnnProduct::WeightGradient(at.y, at.x, at.w, OpContext());
  MeasureOp(state, sizes.need(DType::kF32), [&] { product.Run(); });
}

void CublasForward(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const Tensor w = Filled(sizes.dtype, at.w.shape(), "w");
  MeasureOp(state, sizes.need(sizes.dtype), [&] {
    OpCublas()->Product({at.x}, {w, /*transposed=*/true}, at.y);
  });
}

void CublasInputGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const Tensor w = Filled(sizes.dtype, at.w.shape(), "w");
  MeasureOp(state, sizes.need(sizes.dtype), [&] { OpCublas()->Product({at.y}, {w}, at.x); });
}

void CublasWeightGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  MeasureOp(state, sizes.need(DType::kF32), [&] {
    OpCublas()->Product({at.y, /*transposed=*/true}, {at.x}, at.w);
  });
}

// A weight's image, made anew after each update: pack/FORMAT/DTYPE/N/K.
void Pack(benchmark::State& state, WeightFormat format, DType dtype, int64_t N, int64_t K) {
  const Tensor w = Filled(DType::kF32, {N, K}, "w");
  const Tensor image = kernels::MakeWeightImage(w, format, dtype, OpContext());
  MeasureOp(state, {.bytes = static_cast<double>(w.bytes() + image.bytes())},
            [&] { kernels::PackWeight(w, format, image, OpContext()); });
}

struct Pass {
  const char* name;
  void (*ours)(benchmark::State&, const Sizes&);
  void (*onednn)(benchmark::State&, const Sizes&);
  void (*cublas)(benchmark::State&, const Sizes&);
};
constexpr Pass kPasses[] = {
    {"forward", Forward, OneDnnForward, CublasForward},
    {"input_gradient", InputGradient, OneDnnInputGradient, CublasInputGradient},
    {"weight_gradient", WeightGradient, OneDnnWeightGradient, CublasWeightGradient}};

using Shapes = std::vector<std::array<int64_t, 3>>;
Shapes ShapesHere() {
  if (!OnCpu()) return {{8192, 8192, 8192}, {32768, 2048, 2048}, {32768, 4096, 2048}};
  return {{2048, 256, 256},  {2048, 512, 256},   {2048, 256, 512}, {2048, 8192, 256},
          {2048, 256, 8192}, {2048, 2048, 2048}, {64, 512, 256}};
}

}  // namespace

void RegisterProducts() {
  const Shapes shapes = ShapesHere();
  for (const Pass& pass : kPasses) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const auto& [R, N, K] : shapes) {
        const Sizes sizes{dtype, R, N, K};
        const std::string at =
            absl::StrCat(pass.name, "/", NameOf(dtype), "/R:", R, "/N:", N, "/K:", K);
        RegisterOp("linear/" + at, [=](auto& state) { pass.ours(state, sizes); });
        if (OnCpu()) RegisterOp("onednn/" + at, [=](auto& state) { pass.onednn(state, sizes); });
        if (OpCublas() != nullptr) {
          RegisterOp("cublas/" + at, [=](auto& state) { pass.cublas(state, sizes); });
        }
      }
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::string at = absl::StrCat(NameOf(dtype), "/N:4096/K:4096");
    RegisterOp("pack/packed/" + at,
               [=](auto& state) { Pack(state, WeightFormat::kPacked, dtype, 4096, 4096); });
    RegisterOp("pack/transposed/" + at, [=](auto& state) {
      Pack(state, WeightFormat::kPackedTransposed, dtype, 4096, 4096);
    });
  }
}

}  // namespace moebius
