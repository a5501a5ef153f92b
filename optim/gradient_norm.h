// The norm of the whole gradient, the same number in every layout.
#pragma once

#include "core/tensor/context.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"

namespace moebius {

// The square of the L2 norm over all parameters of all ranks, each element counted once: [1] F64 on
// the device. A rank adds up its share of each bucket, whatever the ZeRO stage, then the ranks add
// up in rank order: so stages 0 and 1 agree to the bit, and other layouts to rounding. REQUIRES:
// gradients are reduced. All ranks call it together.
Tensor SquaredGradientNorm(const GradientBuckets& gradients, Mesh& mesh, Context& context);

}  // namespace moebius
