// What a device is, where kernels depend on it.
#pragma once

#include "kernels/cuda/launch.h"

#ifndef MOEBIUS_CUDA_EMULATION
#include <vector>
#endif

namespace moebius::cuda {

struct Chip {
  int major = 0;    // of its compute capability: 9 is Hopper
  int num_sms = 0;  // that run blocks
};

#ifdef MOEBIUS_CUDA_EMULATION

inline Chip ChipOf(const Context&) { return {.major = 9, .num_sms = 3}; }

#else

// Asked once, of all devices.
inline Chip ChipOf(const Context& ctx) {
  static const std::vector<Chip> chips = [] {
    int count = 0;
    CheckCuda(cudaGetDeviceCount(&count), "counting devices");
    std::vector<Chip> all(count);
    for (int i = 0; i < count; ++i) {
      Chip& chip = all[i];
      CheckCuda(cudaDeviceGetAttribute(&chip.major, cudaDevAttrComputeCapabilityMajor, i),
                "asking the device");
      CheckCuda(cudaDeviceGetAttribute(&chip.num_sms, cudaDevAttrMultiProcessorCount, i),
                "asking the device");
    }
    return all;
  }();
  return chips.at(ctx.device().ordinal);
}

#endif

}  // namespace moebius::cuda
