// Reduction over ranks, in rank order: the one place where values of different ranks are added.
#pragma once

#include <span>

#include "core/tensor/dtype.h"

namespace moebius {

enum class Reduction { kSum, kMax };

// out[i] = parts[0][i], with parts[1][i], parts[2][i], ... added (or compared) in this order, all
// of `dtype`. BF16 is added up in float, and rounded once if `out` is BF16, too: it may be float.
// `out` may be one of the parts. Not for kU8.
void ReduceInRankOrder(Reduction reduction, DType dtype, std::span<const std::byte* const> parts,
                       int64_t count, DType out_dtype, std::byte* out);

}  // namespace moebius
