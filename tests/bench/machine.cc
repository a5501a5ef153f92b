#include "tests/bench/machine.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "tests/bench/cublas.h"
#include "tests/bench/device.h"

namespace moebius {
namespace {

std::vector<int> CoresNow() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}
const std::vector<int> kCoresAtStart = CoresNow();

struct Rate {
  double rate = 0;     // a second, the best
  double seconds = 0;  // of a call
};

Rate Best(Context& context, double work, const std::function<void()>& call) {
  constexpr int kRounds = 5;
  const int64_t calls = CallsInARow(context, call);
  Rate best;
  for (int i = 0; i < kRounds; ++i) {
    const double seconds = SecondsPerCall(context, calls, call);
    if (work / seconds > best.rate) best = {work / seconds, seconds};
  }
  return best;
}

// The best of `measure(size)` over sizes that double, until one call is long enough to be far from
// its start and its end: so a slow device is measured too.
double Largest(int64_t first, int64_t last, const std::function<Rate(int64_t size)>& measure) {
  constexpr double kSeconds = 0.03;
  double best = 0;
  for (int64_t size = first; size <= last; size *= 2) {
    const Rate measured = measure(size);
    best = std::max(best, measured.rate);
    if (measured.seconds > kSeconds) break;
  }
  return best;
}

// `cublas` null: by our own kernels.
double ProductRate(DType dtype, Cublas* cublas, Context& context) {
  return Largest(64, 8192, [&](int64_t n) {
    const Tensor x = NormalTensor(context, dtype, {n, n}, "x");
    const Tensor w = NormalTensor(context, dtype, {n, n}, "w");
    const Tensor y = context.Empty(dtype, {n, n}, "y");
    const auto size = static_cast<double>(n);
    return Best(context, 2 * size * size * size, [&] {
      if (cublas != nullptr) return cublas->Product({x}, {w, true}, y);
      kernels::Linear({.x = x, .w = w, .y = y}, context);
    });
  });
}

double CopyRate(Cublas* cublas, Context& context) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  return Largest(kMiB, 2048 * kMiB, [&](int64_t bytes) {
    const Shape shape = {bytes / SizeOf(DType::kF32)};
    const Tensor from = NormalTensor(context, DType::kF32, shape, "from");
    const Tensor to = context.Empty(DType::kF32, shape, "to");
    return Best(context, 2 * static_cast<double>(bytes), [&] {
      if (cublas != nullptr) return cublas->Copy(from, to);
      kernels::Cast({.x = from, .y = to}, context);
    });
  });
}

Limits GpuLimits(Context& context) {
  const auto opened = Cublas::Open(context);
  Cublas* const cublas = opened.ok() ? opened->get() : nullptr;
  return {.fp32_flops = ProductRate(DType::kF32, cublas, context),
          .bf16_flops = ProductRate(DType::kBF16, cublas, context),
          .bandwidth = CopyRate(cublas, context),
          .source = cublas != nullptr
                        ? cublas->Describe() + ", copy of the driver"
                        : absl::StrCat("own kernels (", opened.status().message(), ")")};
}

}  // namespace

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "unknown";
}

const std::vector<int>& AllowedCores() { return kCoresAtStart; }

double Limits::Seconds(double flops, double bytes, DType dtype) const {
  return std::max(flops / this->flops(dtype), bytes / bandwidth);
}

Limits MeasureLimits(Context& context) {
  if (context.accelerator() != nullptr) return GpuLimits(context);
  // In turn: a neighbour on a shared machine may slow one of them down for a while.
  constexpr int kRounds = 4;
  Limits limits{.source = "registers, triad"};
  for (int i = 0; i < kRounds; ++i) {
    limits.fp32_flops = std::max(limits.fp32_flops, cpu::PeakFlops(DType::kF32, context));
    limits.bf16_flops = std::max(limits.bf16_flops, cpu::PeakFlops(DType::kBF16, context));
    limits.bandwidth = std::max(limits.bandwidth, cpu::TriadBandwidth(context));
  }
  return limits;
}

}  // namespace moebius
