#include "kernels/cpu/simd.h"

namespace moebius::cpu {

SimdKernels GenericKernels();
SimdKernels Avx2Kernels();
SimdKernels Avx512Kernels();
SimdKernels Avx512Bf16Kernels();

std::vector<const SimdKernels*> SupportedSimd() {
  static const SimdKernels generic = GenericKernels(), avx2 = Avx2Kernels(),
                           avx512 = Avx512Kernels(), avx512_bf16 = Avx512Bf16Kernels();
  std::vector<const SimdKernels*> supported = {&generic};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) supported.push_back(&avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    supported.push_back(&avx512);
    if (__builtin_cpu_supports("avx512bf16")) supported.push_back(&avx512_bf16);
  }
  return supported;
}

const SimdKernels& Simd() {
  static const SimdKernels& best = *SupportedSimd().back();
  return best;
}

}  // namespace moebius::cpu
