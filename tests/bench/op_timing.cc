#include "tests/bench/op_timing.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/random.h"
#include "kernels/elementwise.h"

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

}  // namespace

Context& OpContext() {
  static Context* const context = [] {
    const int num_threads = NumThreads();
    std::vector<int> cores = AllowedCores();
    const bool fits = static_cast<int>(cores.size()) >= num_threads;
    if (fits) cores.resize(num_threads);
    return new Context({.num_threads = num_threads,
                        .cores = fits ? cores : std::vector<int>{},
                        .observer = &TheWorkSum()});
  }();
  return *context;
}

const Limits& OpLimits() {
  static const auto* const limits = new Limits(MeasureLimits(OpContext()));
  return *limits;
}

void MeasureOp(benchmark::State& state, const OpNeed& need, const std::function<void()>& op) {
  using Clock = std::chrono::steady_clock;
  op();  // touches its memory
  double total = 0, best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    const auto start = Clock::now();
    op();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    total += seconds;
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
  constexpr int64_t kPeriod = 8191;
  static const auto* const normal = [] {
    auto* const numbers = new std::vector<float>;
    const RandomStream stream(1, "op_timing");
    for (int64_t i = 0; i < kPeriod; ++i) {
      numbers->push_back(static_cast<float>(stream.Normal(static_cast<uint64_t>(i))));
    }
    return numbers;
  }();
  const Tensor x = OpContext().Empty(DType::kF32, shape, name);
  float* to = x.data<float>();
  for (int64_t i = 0; i < x.size(); i += kPeriod) {
    std::copy_n(normal->data(), std::min(kPeriod, x.size() - i), to + i);
  }
  if (dtype == DType::kF32) return x;
  const Tensor y = OpContext().Empty(dtype, shape, name);
  kernels::Cast({.x = x, .y = y}, OpContext());
  return y;
}

Tensor RandomInts(int64_t size, int64_t bound, const char* name) {
  const Tensor x = OpContext().Empty(DType::kI32, {size}, name);
  const RandomStream stream(1, name);
  for (int64_t i = 0; i < size; ++i) {
    x.data<int32_t>()[i] =
        static_cast<int32_t>(stream.Below(static_cast<uint64_t>(i), static_cast<uint64_t>(bound)));
  }
  return x;
}

}  // namespace moebius
