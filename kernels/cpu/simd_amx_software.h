// For tests: the kernels of a processor with AMX, on any processor. Its tile instructions are
// played in software, after their definition in Intel's instruction set reference: so the
// arithmetic of addresses is tested everywhere.
#pragma once

#include "kernels/cpu/simd.h"

namespace moebius::cpu {

SimdKernels SoftwareAmxKernels();

}  // namespace moebius::cpu
