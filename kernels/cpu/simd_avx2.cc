#include "kernels/cpu/simd_inl.h"

namespace moebius::cpu {

SimdKernels Avx2Kernels() { return MakeSimdKernels<8, 6>("avx2"); }

}  // namespace moebius::cpu
