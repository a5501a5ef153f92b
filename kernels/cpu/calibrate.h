// What this machine can do at this moment, measured: the yardstick for utilisation. Hosts change
// their speed, so a result is worth comparing only with timings of the same process.
#pragma once

#include <string>

#include "core/tensor/context.h"

namespace moebius::cpu {

// The instructions that products are made of here: "avx512_bf16".
std::string InstructionSet();

// Floating-point operations a second of all the pool's threads, with operands in registers, in the
// dtype's fastest products (F64 counts as F32's half). About 0.1 s.
double PeakFlops(DType dtype, Context& context);

// Bytes a second of a[i] = b[i] + s * c[i] over arrays far larger than the caches, counting two
// reads and a write, which bypasses them where the processor can. What is updated in place may
// be faster, since memory then reads and writes at once. About 0.1 s.
double TriadBandwidth(Context& context);

}  // namespace moebius::cpu
