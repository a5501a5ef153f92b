// The ops that take a step's time beside what the machine can do, which is measured in the same
// process and printed first; beside the products the same work by oneDNN, on a GPU by cuBLAS.
//   bazel run -c opt //tests/bench:ops -- --benchmark_filter='^linear/'
// Threads: MOEBIUS_NUM_THREADS, or one for each processor. MOEBIUS_DEVICE=CUDA: on the GPU of the
// plugin beside this program, with the sizes of one. What is counted: op_timing.h.
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
  const auto add = [](const char* name, const std::string& value) {
    benchmark::AddCustomContext(name, value);
  };
  if (OnCpu()) {
    add("processor", ProcessorName());
    add("instructions", cpu::InstructionSet());
    add("oneDNN", OneDnnVersion());
    add("threads", std::to_string(OpContext().pool().num_threads()));
  } else {
    add("device", OpContext().accelerator()->Describe());
  }
  add("limits", OpLimits().source);
  add("peak F32 GFLOP/s", giga(OpLimits().fp32_flops));
  add("peak BF16 GFLOP/s", giga(OpLimits().bf16_flops));
  add("bandwidth GB/s", giga(OpLimits().bandwidth));
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
