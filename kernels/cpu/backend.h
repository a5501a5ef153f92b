#pragma once

#include "kernels/backend.h"

namespace moebius::cpu {

extern const kernels::Backend kBackend;

// Of the packed image of a weight [N, K] or [e, N, K], in F32 or BF16.
Shape PackedShape(const Shape& w, WeightFormat format, DType compute);

}  // namespace moebius::cpu
