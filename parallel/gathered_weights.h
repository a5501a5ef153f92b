// The door for weights whose ranks hold a share each (ZeRO stage 3).
#pragma once

#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/tape/tape.h"
#include "core/tensor/context.h"
#include "kernels/weight_images.h"
#include "parallel/value_buckets.h"

namespace moebius {

// Gathers whole buckets. Those that a model expects to use are gathered while it computes: the
// blocks that it names (`now` and `next`) are there, with the images made from them, and no others
// but those that this rank has alone.
// What it has not named is gathered at its use, and of those buckets the two of each group that
// were used last are kept. All ranks of a group expect and lease its weights in one order. A lease
// is valid as long as its tensor is held.
class GatheredWeights final : public WeightSource {
 public:
  // Both outlive the source.
  GatheredWeights(const std::vector<Bucket>& buckets, ValueBuckets& values, Context& context);

  Tensor Lease(Parameter& parameter, WeightFormat format, DType compute) override;
  void Expect(std::span<Parameter* const> now, std::span<Parameter* const> next) override;

 private:
  size_t BucketOf(const Parameter& parameter) const;
  void KeepLatest(size_t bucket);

  const std::vector<Bucket>& buckets_;
  ValueBuckets& values_;
  kernels::ResidentWeights images_;
  std::unordered_map<const Parameter*, size_t> bucket_of_;
  std::set<size_t> expected_;
  std::map<const Communicator*, std::vector<size_t>> latest_;  // not expected; the latest first
};

}  // namespace moebius
