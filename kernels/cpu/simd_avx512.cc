#include "kernels/cpu/simd_inl.h"

namespace moebius::cpu {

SimdKernels Avx512Kernels() { return MakeSimdKernels<16, 14>("avx512"); }

}  // namespace moebius::cpu
