// Speed of products and attention, beside what the machine reaches in registers and from memory in
// the same process.   bazel run //tests/bench:ops -- --benchmark_filter=Linear
// Threads: MOEBIUS_NUM_THREADS, or one for each processor.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

#include "kernels/attention.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/linear.h"
#include "kernels/weight_images.h"

namespace moebius::kernels {
namespace {

Context& TheContext() {
  static Context* context = [] {
    const char* threads = std::getenv("MOEBIUS_NUM_THREADS");
    const int num_threads = threads != nullptr
                                ? std::atoi(threads)
                                : static_cast<int>(std::thread::hardware_concurrency());
    return new Context({.num_threads = num_threads});
  }();
  return *context;
}

void SetRate(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: dtype, groups, rows of all groups, N, K.
void Products(benchmark::State& state, bool weight_gradient) {
  Context& context = TheContext();
  const auto dtype = static_cast<DType>(state.range(0));
  const int64_t e = state.range(1), R = state.range(2), N = state.range(3), K = state.range(4);
  const Shape w_shape = e > 1 ? Shape{e, N, K} : Shape{N, K};
  Tensor offsets;
  if (e > 1) {
    offsets = context.Empty(DType::kI32, {e + 1}, "offsets");
    for (int64_t j = 0; j <= e; ++j) offsets.data<int32_t>()[j] = static_cast<int32_t>(R * j / e);
  }
  const Tensor x = context.Zeros(dtype, {R, K}, "x"), y = context.Zeros(dtype, {R, N}, "y");
  const Tensor w = context.Zeros(DType::kF32, w_shape, "w");
  const Tensor image = MakeWeightImage(w, WeightFormat::kPacked, dtype, context);
  for (auto _ : state) {
    if (weight_gradient) {
      LinearWeightGradient({.dy = y, .x = x, .offsets = offsets, .dw = w}, context);
    } else {
      Linear({.x = x, .w = image, .offsets = offsets, .y = y}, context);
    }
  }
  SetRate(state, 2.0 * static_cast<double>(R * N * K));
}

void Linear(benchmark::State& state) { Products(state, false); }
void WeightGradient(benchmark::State& state) { Products(state, true); }

// Arguments: dtype, N, K.
void Pack(benchmark::State& state, WeightFormat format) {
  Context& context = TheContext();
  const auto dtype = static_cast<DType>(state.range(0));
  const Tensor w = context.Zeros(DType::kF32, {state.range(1), state.range(2)}, "w");
  const Tensor image = MakeWeightImage(w, format, dtype, context);
  for (auto _ : state) PackWeight(w, format, image, context);
  state.SetBytesProcessed(state.iterations() * w.bytes());
}

// Arguments: dtype, B, S, H, G, C.
void Attend(benchmark::State& state, bool gradient) {
  Context& context = TheContext();
  const auto dtype = static_cast<DType>(state.range(0));
  const AttentionShape shape = {state.range(1), state.range(2), state.range(3), state.range(4),
                                state.range(5)};
  const auto& [B, S, H, G, C, queries] = shape;
  const Tensor q = context.Zeros(dtype, {B * S, H * C}, "q"),
               y = context.Zeros(dtype, {B * S, H * C}, "y");
  const Tensor k = context.Zeros(dtype, {B * S, G * C}, "k"),
               v = context.Zeros(dtype, {B * S, G * C}, "v");
  const Tensor dk = context.Zeros(dtype, {B * S, G * C}, "dk"),
               dv = context.Zeros(dtype, {B * S, G * C}, "dv");
  const Tensor dq = context.Zeros(dtype, {B * S, H * C}, "dq");
  const Tensor sums = context.Zeros(DType::kF32, {B * S, H}, "logsumexp");
  for (auto _ : state) {
    if (gradient) {
      AttentionGradient({.shape = shape,
                         .q = q,
                         .k = k,
                         .v = v,
                         .y = y,
                         .logsumexp = sums,
                         .dy = y,
                         .dq = dq,
                         .dk = dk,
                         .dv = dv},
                        context);
    } else {
      Attention({.shape = shape, .q = q, .k = k, .v = v, .y = y, .logsumexp = sums}, context);
    }
  }
  // Of the causal half: two products forward, five backward.
  SetRate(state, (gradient ? 5.0 : 2.0) * static_cast<double>(B * H * S * (S + 1) * C));
}

constexpr int64_t kF32 = static_cast<int64_t>(DType::kF32),
                  kBF16 = static_cast<int64_t>(DType::kBF16);

void ProductShapes(benchmark::internal::Benchmark* bench) {
  for (const int64_t dtype : {kF32, kBF16}) {
    for (const int64_t N : {256, 512, 8192}) bench->Args({dtype, 1, 2048, N, 256});
    bench->Args({dtype, 1, 2048, 256, 8192})
        ->Args({dtype, 8, 4096, 512, 256})
        ->Args({dtype, 8, 4096, 256, 512});
  }
}

void AttentionShapes(benchmark::internal::Benchmark* bench) {
  for (const int64_t dtype : {kF32, kBF16}) {
    bench->Args({dtype, 8, 256, 4, 4, 64})
        ->Args({dtype, 8, 256, 8, 2, 32})
        ->Args({dtype, 1, 1024, 32, 32, 64});
  }
}

BENCHMARK(Linear)->Apply(ProductShapes)->UseRealTime();
BENCHMARK(WeightGradient)->Apply(ProductShapes)->UseRealTime();
BENCHMARK_CAPTURE(Attend, forward, false)->Apply(AttentionShapes)->UseRealTime();
BENCHMARK_CAPTURE(Attend, gradient, true)->Apply(AttentionShapes)->UseRealTime();
BENCHMARK_CAPTURE(Pack, packed, WeightFormat::kPacked)
    ->Args({kF32, 512, 256})
    ->Args({kBF16, 512, 256})
    ->UseRealTime();
BENCHMARK_CAPTURE(Pack, transposed, WeightFormat::kPackedTransposed)
    ->Args({kF32, 512, 256})
    ->Args({kBF16, 512, 256})
    ->UseRealTime();

}  // namespace
}  // namespace moebius::kernels

int main(int argc, char** argv) {
  using namespace moebius;
  benchmark::Initialize(&argc, argv);
  Context& context = kernels::TheContext();
  const auto giga = [](double rate) { return std::to_string(static_cast<int64_t>(rate / 1e9)); };
  benchmark::AddCustomContext("threads", std::to_string(context.pool().num_threads()));
  benchmark::AddCustomContext("peak F32 GFLOP/s", giga(cpu::PeakFlops(DType::kF32, context)));
  benchmark::AddCustomContext("peak BF16 GFLOP/s", giga(cpu::PeakFlops(DType::kBF16, context)));
  benchmark::AddCustomContext("triad GB/s", giga(cpu::TriadBandwidth(context)));
  benchmark::RunSpecifiedBenchmarks();
}
