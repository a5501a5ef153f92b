// The norm of the whole gradient, the same number in every layout.
#pragma once

#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"
#include "parallel/mesh.h"

namespace moebius {

// The L2 norm over all parameters of all ranks, each element counted once: by the first of its
// replicas. REQUIRES: gradients are reduced. All ranks call it together.
double GradientNorm(const std::vector<Parameter*>& parameters, Mesh& mesh, Context& context);

}  // namespace moebius
