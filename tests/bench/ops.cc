// The ops that take a step's time beside what the machine can do, which is measured in the same
// process and printed first; beside the products the same work by oneDNN.
//   bazel run -c opt //tests/bench:ops -- --benchmark_filter='^linear/'
// Threads: MOEBIUS_NUM_THREADS, or one for each processor. What is counted: op_timing.h.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

#include "kernels/cpu/calibrate.h"
#include "tests/bench/onednn.h"
#include "tests/bench/op_timing.h"

namespace moebius {
namespace {

void PrintMachine() {
  const auto giga = [](double rate) { return std::to_string(static_cast<int64_t>(rate / 1e9)); };
  benchmark::AddCustomContext("processor", ProcessorName());
  benchmark::AddCustomContext("instructions", cpu::InstructionSet());
  benchmark::AddCustomContext("oneDNN", OneDnnVersion());
  benchmark::AddCustomContext("threads", std::to_string(OpContext().pool().num_threads()));
  benchmark::AddCustomContext("peak F32 GFLOP/s", giga(OpLimits().fp32_flops));
  benchmark::AddCustomContext("peak BF16 GFLOP/s", giga(OpLimits().bf16_flops));
  benchmark::AddCustomContext("triad GB/s", giga(OpLimits().bandwidth));
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  moebius::PrintMachine();
  moebius::RegisterProducts();
  moebius::RegisterGroupedProducts();
  moebius::RegisterAttention();
  moebius::RegisterLoss();
  moebius::RegisterMemoryOps();
  moebius::RegisterRouting();
  benchmark::RunSpecifiedBenchmarks();
}
