// The door for weights whose ranks hold a share each (ZeRO stage 3).
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "core/tape/tape.h"
#include "core/tensor/context.h"
#include "kernels/weight_images.h"
#include "parallel/value_buckets.h"

namespace moebius {

// Gathers the bucket of a weight at its use, and keeps the two buckets of each group that were used
// last, with the images made from them. A model uses its parameters nearly in order, so a bucket is
// gathered once forward and once backward. All ranks of a group lease its weights in one order. A
// lease is valid as long as its tensor is held.
class GatheredWeights final : public WeightSource {
 public:
  // Both outlive the source.
  GatheredWeights(const std::vector<Bucket>& buckets, ValueBuckets& values, Context& context);

  Tensor Lease(Parameter& parameter, WeightFormat format, DType compute) override;

 private:
  const std::vector<Bucket>& buckets_;
  ValueBuckets& values_;
  kernels::ResidentWeights images_;
  std::unordered_map<const Parameter*, size_t> bucket_of_;
  std::map<const Communicator*, std::vector<size_t>> latest_;  // by group, the latest first
};

}  // namespace moebius
