// What routing did in one layer within a step on this rank: on the device until the step ends, but
// for the margins, which the host computes.
#pragma once

#include <vector>

#include "core/tensor/tensor.h"

namespace moebius {

struct RoutingRecord {
  // [E + 2] F64, over the micro-batches so far: the pairs of each expert, then the unweighted
  // balance losses, in their order of the spec, and z-losses.
  Tensor sums;
  std::vector<Tensor> margins;  // [1] F64 each: smallest gap between the last chosen and the best
                                // not chosen expert; filled when asked for

  Tensor counts() const { return sums.Slice(0, sums.size() - 2); }
  Tensor balance_loss() const { return sums.Slice(sums.size() - 2, sums.size() - 1); }
  Tensor z_loss() const { return sums.Slice(sums.size() - 1, sums.size()); }
};

}  // namespace moebius
