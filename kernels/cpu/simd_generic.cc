#include "kernels/cpu/simd_inl.h"

namespace moebius::cpu {

SimdKernels GenericKernels() { return MakeSimdKernels<4, 4>("generic"); }

}  // namespace moebius::cpu
