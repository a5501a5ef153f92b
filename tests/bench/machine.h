// The machine that a benchmark runs on, and what it can do at this moment.
#pragma once

#include <string>
#include <vector>

#include "core/tensor/context.h"

namespace moebius {

std::string ProcessorName();  // as the system calls it

// Where this process could run when it started, in ascending order.
const std::vector<int>& AllowedCores();

// What bounds every op. Measured, so worth comparing only with timings of the same process.
struct Limits {
  double fp32_flops = 0, bf16_flops = 0;  // a second, from registers
  double bandwidth = 0;                   // bytes a second, triad

  double flops(DType dtype) const {
    return dtype == DType::kBF16 ? bf16_flops : dtype == DType::kF64 ? fp32_flops / 2 : fp32_flops;
  }

  // That these operations and bytes take at least.
  double Seconds(double flops, double bytes, DType dtype) const;
};

// About 0.3 s, on the context's threads.
Limits MeasureLimits(Context& context);

}  // namespace moebius
