// Products over ragged experts: grouped/PASS/DTYPE/LOAD/e/R/N/K, and onednn_loop/PASS/..., which is
// one oneDNN product for each expert that has rows, its weights packed in advance, on the CPU.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "kernels/linear.h"
#include "kernels/weight_images.h"
#include "tests/bench/device.h"
#include "tests/bench/onednn.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

enum class Load {
  kUniform,  // the same rows for every expert
  kSkewed,   // expert i has about 1 / (i + 1) of what the first has; the last eighth has none
};

constexpr int64_t kRowsPerToken = 2;  // of a sum

struct Sizes {
  DType dtype;
  Load load;
  int64_t e, R, N, K;
};

std::vector<int32_t> OffsetsOf(const Sizes& sizes) {
  const int64_t busy = sizes.load == Load::kUniform ? sizes.e : sizes.e - sizes.e / 8;
  std::vector<double> until = {0};
  for (int64_t j = 0; j < sizes.e; ++j) {
    const double share = j >= busy ? 0.0 : sizes.load == Load::kUniform ? 1.0 : 1.0 / (j + 1.0);
    until.push_back(until.back() + share);
  }
  std::vector<int32_t> offsets;
  for (const double sum : until) {
    offsets.push_back(
        static_cast<int32_t>(std::lround(static_cast<double>(sizes.R) * sum / until.back())));
  }
  return offsets;
}

struct Operands {
  explicit Operands(const Sizes& sizes)
      : x(Filled(sizes.dtype, {sizes.R, sizes.K}, "x")),
        y(Filled(sizes.dtype, {sizes.R, sizes.N}, "y")),
        w(Filled(DType::kF32, {sizes.e, sizes.N, sizes.K}, "w")),
        rows(OffsetsOf(sizes)),
        offsets(TensorOf(OpContext(), rows, "offsets")) {
    const auto busy = static_cast<double>(sizes.e - Idle());
    const double matrix = static_cast<double>(sizes.N * sizes.K);
    const double row_bytes = static_cast<double>(SizeOf(sizes.dtype) * (sizes.N + sizes.K));
    need = {.flops = 2 * static_cast<double>(sizes.R) * matrix,
            .bytes = static_cast<double>(sizes.R) * row_bytes +
                     busy * matrix * static_cast<double>(SizeOf(sizes.dtype)),
            .dtype = sizes.dtype};
    // Every expert's gradient is written, in F32.
    gradient_need = need;
    gradient_need.bytes = static_cast<double>(sizes.R) * row_bytes + static_cast<double>(w.bytes());
  }

  int64_t Idle() const {
    int64_t idle = 0;
    for (size_t j = 1; j < rows.size(); ++j) idle += rows[j - 1] == rows[j];
    return idle;
  }
  Tensor MatrixOf(size_t j) const {
    return w.Slice(static_cast<int64_t>(j), static_cast<int64_t>(j) + 1)
        .Reshape({w.shape()[1], w.shape()[2]});
  }

  Tensor x, y, w;  // or their gradients
  std::vector<int32_t> rows;
  Tensor offsets;
  OpNeed need, gradient_need;
};

void Forward(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  const Tensor image = kernels::MakeWeightImage(at.w, WeightFormat::kPacked, sizes.dtype, context);
  MeasureOp(state, at.need, [&] {
    kernels::Linear({.x = at.x, .w = image, .offsets = at.offsets, .y = at.y}, context);
  });
}

void InputGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  const Tensor image =
      kernels::MakeWeightImage(at.w, WeightFormat::kPackedTransposed, sizes.dtype, context);
  MeasureOp(state, at.need, [&] {
    kernels::LinearInputGradient({.dy = at.y, .w = image, .offsets = at.offsets, .dx = at.x},
                                 context);
  });
}

void WeightGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  MeasureOp(state, at.gradient_need, [&] {
    kernels::LinearWeightGradient({.dy = at.y, .x = at.x, .offsets = at.offsets, .dw = at.w},
                                  OpContext());
  });
}

// Every token chose R / T experts; expert j's rows are spread over the tokens.
void Sum(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  Context& context = OpContext();
  const int64_t T = sizes.R / kRowsPerToken;
  std::vector<int32_t> tokens;
  for (int64_t r = 0, j = 0; r < sizes.R; ++r) {
    while (r >= at.rows[j + 1]) ++j;
    const int64_t begin = at.rows[j], end = at.rows[j + 1];
    tokens.push_back(static_cast<int32_t>((r - begin) * T / (end - begin)));
  }
  const Tensor rows = TensorOf(context, tokens, "rows");
  const Tensor y = Filled(sizes.dtype, {T, sizes.N}, "sums");
  const Tensor image = kernels::MakeWeightImage(at.w, WeightFormat::kPacked, sizes.dtype, context);
  OpNeed need = at.need;
  need.bytes -= static_cast<double>(SizeOf(sizes.dtype) * (sizes.R - T) * sizes.N);
  MeasureOp(state, need, [&] {
    kernels::LinearSum({.x = at.x,
                        .w = image,
                        .format = WeightFormat::kPacked,
                        .offsets = at.offsets,
                        .rows = rows,
                        .y = y},
                       context);
  });
}

// make(x, y, w) of each expert that has rows.
template <class Make>
std::vector<OneDnnProduct> ProductsOf(const Operands& at, const Make& make) {
  std::vector<OneDnnProduct> products;
  for (size_t j = 0; j + 1 < at.rows.size(); ++j) {
    if (at.rows[j] == at.rows[j + 1]) continue;
    products.push_back(make(at.x.Slice(at.rows[j], at.rows[j + 1]),
                            at.y.Slice(at.rows[j], at.rows[j + 1]), at.MatrixOf(j)));
  }
  return products;
}

void Run(const std::vector<OneDnnProduct>& products) {
  for (const OneDnnProduct& product : products) product.Run();
}

void OneDnnForward(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto products = ProductsOf(at, [](const Tensor& x, const Tensor& y, const Tensor& w) {
    return OneDnnProduct::Forward(x, w, y, OpContext());
  });
  MeasureOp(state, at.need, [&] { Run(products); });
}

void OneDnnInputGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto products = ProductsOf(at, [](const Tensor& x, const Tensor& y, const Tensor& w) {
    return OneDnnProduct::InputGradient(y, w, x, OpContext());
  });
  MeasureOp(state, at.need, [&] { Run(products); });
}

// Gradients of experts without rows are zeroed, as ours are.
void OneDnnWeightGradient(benchmark::State& state, const Sizes& sizes) {
  const Operands at(sizes);
  const auto products = ProductsOf(at, [](const Tensor& x, const Tensor& y, const Tensor& w) {
    return OneDnnProduct::WeightGradient(y, x, w, OpContext());
  });
  MeasureOp(state, at.gradient_need, [&] {
    Run(products);
    for (size_t j = 0; j + 1 < at.rows.size(); ++j) {
      if (at.rows[j] == at.rows[j + 1]) std::ranges::fill(at.MatrixOf(j).span<float>(), 0.0f);
    }
  });
}

struct Pass {
  const char* name;
  void (*ours)(benchmark::State&, const Sizes&);
  void (*onednn)(benchmark::State&, const Sizes&);  // or null
};
constexpr Pass kPasses[] = {{"forward", Forward, OneDnnForward},
                            {"sum", Sum, nullptr},
                            {"input_gradient", InputGradient, OneDnnInputGradient},
                            {"weight_gradient", WeightGradient, OneDnnWeightGradient}};

using Shapes = std::vector<std::array<int64_t, 4>>;

// On the CPU many small experts, 32 rows each on average, and those of the reference step; on a GPU
// those that 32,768 tokens choose in a layer of Mixtral 8x7B, OLMoE-1B-7B and Qwen3-30B-A3B.
Shapes ShapesHere() {
  if (!OnCpu()) {
    return {{8, 65536, 14336, 4096}, {64, 262144, 1024, 2048}, {128, 262144, 768, 2048}};
  }
  return {{64, 2048, 512, 256}, {64, 2048, 768, 1024}, {8, 4096, 512, 256}, {8, 4096, 256, 512}};
}

}  // namespace

void RegisterGroupedProducts() {
  const Shapes shapes = ShapesHere();
  for (const Pass& pass : kPasses) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Load load : {Load::kUniform, Load::kSkewed}) {
        for (const auto& [e, R, N, K] : shapes) {
          const Sizes sizes{dtype, load, e, R, N, K};
          const std::string at = absl::StrCat(pass.name, "/", NameOf(dtype),
                                              load == Load::kUniform ? "/uniform" : "/skewed",
                                              "/e:", e, "/R:", R, "/N:", N, "/K:", K);
          RegisterOp("grouped/" + at, [=](auto& state) { pass.ours(state, sizes); });
          if (pass.onednn == nullptr || !OnCpu()) continue;
          RegisterOp("onednn_loop/" + at, [=](auto& state) { pass.onednn(state, sizes); });
        }
      }
    }
  }
}

}  // namespace moebius
