#include "tests/bench/machine.h"

#include <sched.h>

#include <algorithm>
#include <fstream>

#include "kernels/cpu/calibrate.h"

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
  // In turn: a neighbour on a shared machine may slow one of them down for a while.
  constexpr int kRounds = 4;
  Limits limits;
  for (int i = 0; i < kRounds; ++i) {
    limits.fp32_flops = std::max(limits.fp32_flops, cpu::PeakFlops(DType::kF32, context));
    limits.bf16_flops = std::max(limits.bf16_flops, cpu::PeakFlops(DType::kBF16, context));
    limits.bandwidth = std::max(limits.bandwidth, cpu::TriadBandwidth(context));
  }
  return limits;
}

}  // namespace moebius
