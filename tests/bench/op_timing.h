// How the benchmarks of ops measure. An iteration is a call. On a GPU so many in a row as take
// about 10 ms are timed together, the wait for the last one included. Every benchmark has these
// counters:
//   GFLOP/s  or GB/s: the mean over its iterations, of the operations or the bytes of `Work`
//   share    of the limit that applies, the mean: of min(peak, operations per byte x bandwidth) for
//            what multiplies, of the bandwidth for what moves bytes (machine.h: Limits)
//   best     the same share of the fastest of them, which other work on the machine disturbs less
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>

#include "core/tensor/context.h"
#include "tests/bench/cublas.h"
#include "tests/bench/machine.h"

namespace moebius {

// Shared by all benchmarks of the process: on the CPU, one pinned thread for each of
// MOEBIUS_NUM_THREADS, or for each processor; where MOEBIUS_DEVICE is CUDA, on the first GPU. Ends
// the process if there is none.
Context& OpContext();
bool OnCpu();

// Null on the CPU, and where it is not there.
Cublas* OpCublas();

// Measured once, at the first call.
const Limits& OpLimits();

// The least that an op has to do.
struct OpNeed {
  double flops = 0;
  double bytes = 0;  // of operands and results, each once
  DType dtype = DType::kF32;
};

// Runs `op` over and over. Without a need, it is what the op tells the context's observer.
void MeasureOp(benchmark::State& state, const OpNeed& need, const std::function<void()>& op);
void MeasureOp(benchmark::State& state, const std::function<void()>& op);

// `register_one` makes its tensors when it runs: unused benchmarks cost nothing.
void RegisterOp(const std::string& name, const std::function<void(benchmark::State&)>& body);

// Normal numbers (device.h).
Tensor Filled(DType dtype, const Shape& shape, const char* name);
// Numbers in [0, bound) at random.
Tensor RandomInts(int64_t size, int64_t bound, const char* name);

// Each file of benchmarks.
void RegisterProducts();
void RegisterGroupedProducts();
void RegisterAttention();
void RegisterMemoryOps();
void RegisterRouting();
void RegisterLoss();

}  // namespace moebius
