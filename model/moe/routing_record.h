// What routing did in one layer within a step on this rank, kept on the device until the step ends.
#pragma once

#include <vector>

#include "core/tensor/tensor.h"

namespace moebius {

struct RoutingRecord {
  Tensor counts;  // [E] F64: pairs of each expert over the micro-batches so far
  std::vector<Tensor> balance_losses;  // [1] F64 each: unweighted, in their order of the spec,
                                       // micro-batch after micro-batch
  std::vector<Tensor> z_losses;        // [1] F64 each, unweighted
  std::vector<Tensor> margins;  // [1] F64 each: smallest gap between the last chosen and the best
                                // not chosen expert; filled when asked for
};

}  // namespace moebius
