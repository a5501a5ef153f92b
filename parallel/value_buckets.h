// The values of all parameters, in the buckets of their gradients, and what the ZeRO stages do to
// them:
//
//   stage 0     nothing: every rank updates everything
//   stage 1, 2  a rank updates its share of each bucket, and the shares are gathered at once
//   stage 3     a rank holds its share alone; the whole bucket is gathered for a use (gathered_
//               weights.h), and while it is not, Parameter::value is NoValue
//
// A bucket whose group is one rank stays whole in every stage.
#pragma once

#include <memory>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"
#include "parallel/bucket.h"

namespace moebius {

class ValueBuckets {
 public:
  // Moves the values into buckets, keeping every number. In stage 3 there may be NoValue: what this
  // rank has is then zeros, and no more than its share is ever allocated. The buckets and the
  // context outlive this.
  ValueBuckets(const std::vector<Bucket>& buckets, ZeroStage stage, Context& context);
  ~ValueBuckets() { BeginUpdate(); }

  // Whether values are there only while they are gathered: those whose bucket has peers.
  bool are_sharded() const { return stage_ == ZeroStage::kParameters; }

  // The elements of `part` that this rank updates, [end - begin]. REQUIRES: they are its own.
  Tensor Own(size_t bucket, const Bucket::Part& part) const;

  // Before an update: nothing that it changes is on its way any more.
  void BeginUpdate();

  // After the update of this rank's own part: fetches the other ranks' in stages 1 and 2. In stage
  // 3 it drops what was gathered before the update. A collective of the bucket's group.
  Handle Updated(size_t bucket);

  // Stage 3: the members' values, until `Release`, or until what reads them lets go of its tensors.
  // Collectives of the bucket's group, but for what is there already. What StartGather has started
  // Gather waits for; meanwhile it goes on in Poll. Where a bucket has no peers its values stay.
  void StartGather(size_t bucket);
  void Gather(size_t bucket);
  void Release(size_t bucket);  // and the images made from them
  void Poll();

 private:
  bool is_sharded(size_t b) const { return are_sharded() && buckets_[b].has_peers(); }
  void MoveIntoBucket(size_t bucket);
  void MoveIntoShare(size_t bucket);

  const std::vector<Bucket>& buckets_;
  const ZeroStage stage_;
  Context& context_;
  std::vector<Tensor> flats_;      // [size]; sharded: while it is gathered
  std::vector<int64_t> versions_;  // sharded: of the first member when it was gathered
  std::vector<Handle> gathers_;    // sharded: on their way
  std::vector<Tensor> shares_;     // sharded: [share_size]
};

}  // namespace moebius
