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
  double fp32_flops = 0, bf16_flops = 0;  // a second
  double bandwidth = 0;                   // bytes a second
  std::string source;                     // what was measured

  double flops(DType dtype) const {
    return dtype == DType::kBF16 ? bf16_flops : dtype == DType::kF64 ? fp32_flops / 2 : fp32_flops;
  }

  // That these operations and bytes take at least.
  double Seconds(double flops, double bytes, DType dtype) const;
};

// Of the CPU: multiply-adds from registers and the triad, on the context's threads, about 0.3 s.
// Of a GPU: dense products of up to 8192 x 8192 x 8192 by cuBLAS and a copy of up to 2 GiB by the
// driver, bytes read and written both counted, about 1 s; by our own kernels where these libraries
// are not there. Memory of up to 4 GiB is taken meanwhile.
Limits MeasureLimits(Context& context);

}  // namespace moebius
