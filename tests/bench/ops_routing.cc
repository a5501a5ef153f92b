// What routes tokens: scores, top-k with its plan, and rows to their experts and back. OP/DTYPE;
// the limit is the bandwidth.
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/activations.h"
#include "kernels/routing.h"
#include "kernels/routing_plan.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

constexpr int64_t kTokens = 16384, kExperts = 64, kTopK = 4, kWidth = 1024;

RoutingPlan Plan() {
  const Tensor scores = Filled(DType::kF32, {kTokens, kExperts}, "scores");
  return kernels::TopK({.scores = scores, .k = kTopK}, OpContext());
}

Tensor Rows(DType dtype, const char* name) {
  return Filled(dtype, {kTokens * kTopK, kWidth}, name);
}
Tensor Tokens(DType dtype, const char* name) { return Filled(dtype, {kTokens, kWidth}, name); }

// Bytes of rows [P, D] and tokens [T, D], each read or written once.
OpNeed RowsAndTokens(DType dtype) {
  return {.bytes = static_cast<double>(SizeOf(dtype) * kTokens * (kTopK + 1) * kWidth)};
}

void TopK(benchmark::State& state) {
  const Tensor scores = Filled(DType::kF32, {8 * kTokens, kExperts}, "scores");
  MeasureOp(state, [&] {
    benchmark::DoNotOptimize(kernels::TopK({.scores = scores, .k = kTopK}, OpContext()));
  });
}

// From the chosen experts of each token; in TopK a part.
void BuildPlan(benchmark::State& state) {
  const Tensor scores = Filled(DType::kF32, {8 * kTokens, kExperts}, "scores");
  const RoutingPlan plan = kernels::TopK({.scores = scores, .k = kTopK}, OpContext());
  MeasureOp(state, [&] {
    benchmark::DoNotOptimize(
        kernels::BuildPlan(plan.token_offsets, plan.expert, kExperts, OpContext()));
  });
}

void Softmax(benchmark::State& state) {
  const Tensor z = Filled(DType::kF32, {8 * kTokens, kExperts}, "z"),
               p = Filled(DType::kF32, {8 * kTokens, kExperts}, "p");
  MeasureOp(state, [&] { kernels::Softmax(z, p, OpContext()); });
}

// What rows that move are compared with: as many bytes read as written, by memcpy, a piece for each
// task of a thread; on a GPU by its driver.
void Copy(benchmark::State& state, DType dtype) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  const Tensor from = Rows(dtype, "from"), to = Rows(dtype, "to");
  MeasureOp(state, {.bytes = static_cast<double>(from.bytes() + to.bytes())}, [&] {
    if (!OnCpu()) return OpCublas()->Copy(from, to);
    OpContext().pool().ForRange(from.bytes(), kPiece, [&](int64_t begin, int64_t end) {
      std::memcpy(to.raw() + begin, from.raw() + begin, static_cast<size_t>(end - begin));
    });
  });
}

void Permute(benchmark::State& state, DType dtype) {
  const RoutingPlan plan = Plan();
  const Tensor x = Tokens(dtype, "x"), rows = Rows(dtype, "rows");
  MeasureOp(state, RowsAndTokens(dtype), [&] { kernels::Permute(x, plan, rows, OpContext()); });
}

void PermuteGradient(benchmark::State& state, DType dtype) {
  const RoutingPlan plan = Plan();
  const Tensor dx = Tokens(dtype, "dx"), drows = Rows(dtype, "drows");
  MeasureOp(state, RowsAndTokens(dtype), [&] {
    kernels::PermuteGradient({.drows = drows, .plan = plan, .dx = dx, .accumulate = false},
                             OpContext());
  });
}

void Combine(benchmark::State& state, DType dtype) {
  const RoutingPlan plan = Plan();
  const Tensor y = Tokens(dtype, "y"), rows = Rows(dtype, "rows");
  const Tensor weights = Filled(DType::kF32, {kTokens * kTopK}, "weights");
  MeasureOp(state, RowsAndTokens(dtype),
            [&] { kernels::Combine(rows, weights, plan, y, OpContext()); });
}

void CombineGradient(benchmark::State& state, DType dtype) {
  const RoutingPlan plan = Plan();
  const Tensor dy = Tokens(dtype, "dy"), rows = Rows(dtype, "rows"), drows = Rows(dtype, "drows");
  const Tensor weights = Filled(DType::kF32, {kTokens * kTopK}, "weights"),
               dweights = Filled(DType::kF32, {kTokens * kTopK}, "dweights");
  OpNeed need = RowsAndTokens(dtype);
  need.bytes += static_cast<double>(drows.bytes());
  MeasureOp(state, need, [&] {
    kernels::CombineGradient({.dy = dy,
                              .rows = rows,
                              .weights = weights,
                              .plan = plan,
                              .drows = drows,
                              .accumulate_drows = false,
                              .dweights = dweights,
                              .accumulate_dweights = false},
                             OpContext());
  });
}

}  // namespace

void RegisterRouting() {
  RegisterOp("softmax/F32", Softmax);
  RegisterOp("top_k/F32", TopK);
  RegisterOp("build_plan/I32", BuildPlan);
  using Op = void (*)(benchmark::State&, DType);
  constexpr std::pair<const char*, Op> kOps[] = {{"copy", Copy},
                                                 {"permute", Permute},
                                                 {"permute.gradient", PermuteGradient},
                                                 {"combine", Combine},
                                                 {"combine.gradient", CombineGradient}};
  for (const auto& [name, op] : kOps) {
    if (op == Copy && !OnCpu() && OpCublas() == nullptr) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      RegisterOp(absl::StrCat(name, "/", NameOf(dtype)),
                 [=, op = op](auto& state) { op(state, dtype); });
    }
  }
}

}  // namespace moebius
