#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moebius::cpu {

SimdKernels GenericKernels();
SimdKernels Avx2Kernels();
SimdKernels Avx512Kernels();
SimdKernels Avx512Bf16Kernels();
SimdKernels AmxKernels();

namespace {

// The processor has tiles of bf16 and rounds to it, and the system lets this process use them.
bool HasAmx() {
  unsigned a, b, c, d;
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

std::vector<const SimdKernels*> SupportedSimd() {
  static const SimdKernels generic = GenericKernels(), avx2 = Avx2Kernels(),
                           avx512 = Avx512Kernels(), avx512_bf16 = Avx512Bf16Kernels(),
                           amx = AmxKernels();
  static const bool has_amx = HasAmx();
  std::vector<const SimdKernels*> supported = {&generic};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) supported.push_back(&avx2);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return supported;
  }
  // Intel's processors multiply pairs at half the rate of floats; AMD's at twice.
  if (__builtin_cpu_supports("avx512bf16") && !__builtin_cpu_is("amd")) {
    supported.push_back(&avx512_bf16);
  }
  supported.push_back(&avx512);
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd")) {
    supported.push_back(&avx512_bf16);
  }
  if (has_amx) supported.push_back(&amx);
  return supported;
}

const SimdKernels& Simd() {
  static const SimdKernels& best = *SupportedSimd().back();
  return best;
}

}  // namespace moebius::cpu
