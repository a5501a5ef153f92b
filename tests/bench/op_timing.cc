#include "tests/bench/op_timing.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/random.h"
#include "tests/bench/device.h"

namespace moebius {
namespace {

// What one call of an op tells; an op may be made of several.
class WorkSum final : public WorkObserver {
 public:
  void OpBegins(const Work& work) override {
    sum_.flops += work.flops;
    sum_.bytes += static_cast<double>(work.bytes);
    if (work.kind != Work::Kind::kMemory) sum_.dtype = work.dtype;
  }
  OpNeed Take() { return std::exchange(sum_, {}); }

 private:
  OpNeed sum_;
};

WorkSum& TheWorkSum() {
  static WorkSum* const sum = new WorkSum;
  return *sum;
}

int NumThreads() {
  const char* threads = std::getenv("MOEBIUS_NUM_THREADS");
  const int given = threads != nullptr ? std::atoi(threads) : 0;
  return given > 0 ? given : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

Context::Options OnChosenDevice(const Context::Options& options) {
  const char* device = std::getenv("MOEBIUS_DEVICE");
  if (device == nullptr || device != std::string_view("CUDA")) return options;
  const auto on_gpu = OnGpu(options);
  if (on_gpu.ok()) return *on_gpu;
  std::fprintf(stderr, "MOEBIUS_DEVICE=CUDA: %s\n", on_gpu.status().ToString().c_str());
  std::exit(2);
}

}  // namespace

Context& OpContext() {
  static Context* const context = [] {
    const int num_threads = NumThreads();
    std::vector<int> cores = AllowedCores();
    const bool fits = static_cast<int>(cores.size()) >= num_threads;
    if (fits) cores.resize(num_threads);
    return new Context(OnChosenDevice({.num_threads = num_threads,
                                       .cores = fits ? cores : std::vector<int>{},
                                       .observer = &TheWorkSum()}));
  }();
  return *context;
}

bool OnCpu() { return OpContext().accelerator() == nullptr; }

Cublas* OpCublas() {
  static Cublas* const cublas = [] {
    auto opened = Cublas::Open(OpContext());
    return opened.ok() ? opened->release() : nullptr;
  }();
  return cublas;
}

const Limits& OpLimits() {
  static const auto* const limits = new Limits(MeasureLimits(OpContext()));
  return *limits;
}

void MeasureOp(benchmark::State& state, const OpNeed& need, const std::function<void()>& op) {
  Context& context = OpContext();
  op();  // touches its memory
  const int64_t calls = CallsInARow(context, op);
  double total = 0, best = std::numeric_limits<double>::infinity();
  while (state.KeepRunningBatch(calls)) {
    const double seconds = SecondsPerCall(context, calls, op);
    total += seconds * static_cast<double>(calls);
    best = std::min(best, seconds);
  }
  const double mean = total / static_cast<double>(state.iterations());
  const double least = OpLimits().Seconds(need.flops, need.bytes, need.dtype);
  if (need.flops > 0) {
    state.counters["GFLOP/s"] = need.flops / mean / 1e9;
  } else {
    state.counters["GB/s"] = need.bytes / mean / 1e9;
  }
  state.counters["share"] = least / mean;
  state.counters["best"] = least / best;
}

void MeasureOp(benchmark::State& state, const std::function<void()>& op) {
  TheWorkSum().Take();
  op();
  const OpNeed need = TheWorkSum().Take();
  MeasureOp(state, need, op);
}

void RegisterOp(const std::string& name, const std::function<void(benchmark::State&)>& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

Tensor Filled(DType dtype, const Shape& shape, const char* name) {
  return NormalTensor(OpContext(), dtype, shape, name);
}

Tensor RandomInts(int64_t size, int64_t bound, const char* name) {
  const RandomStream stream(1, name);
  std::vector<int32_t> numbers;
  for (int64_t i = 0; i < size; ++i) {
    numbers.push_back(
        static_cast<int32_t>(stream.Below(static_cast<uint64_t>(i), static_cast<uint64_t>(bound))));
  }
  return TensorOf(OpContext(), numbers, name);
}

}  // namespace moebius
