// The values of all parameters, in the buckets of their gradients, and what the ZeRO stages do to
// them:
//
//   stage 0     nothing: every rank updates everything
//   stage 1, 2  a rank updates its share of each bucket, and the shares are gathered at once
//   stage 3     a rank holds its share alone; the whole bucket is gathered for a use (gathered_
//               weights.h), and while it is not, Parameter::value is NoValue
#pragma once

#include <memory>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"
#include "parallel/bucket.h"

namespace moebius {

class ValueBuckets {
 public:
  // Moves the values into buckets, keeping every number. In stage 3 there may be NoValue: the
  // shares are then zeros, and no more than a share is ever allocated. The buckets and the context
  // outlive this.
  ValueBuckets(const std::vector<Bucket>& buckets, ZeroStage stage, Context& context);
  ~ValueBuckets() { BeginUpdate(); }

  // Whether a parameter's value is there only while it is gathered.
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
  // Gather waits for; meanwhile it goes on in Poll.
  void StartGather(size_t bucket);
  void Gather(size_t bucket);
  void Release(size_t bucket);  // and the images made from them
  void Poll();

 private:
  void MoveIntoBucket(size_t bucket);
  void MoveIntoShare(size_t bucket);

  const std::vector<Bucket>& buckets_;
  const ZeroStage stage_;
  Context& context_;
  std::vector<Tensor> flats_;      // stages 1, 2: [size]; stage 3: while it is gathered
  std::vector<int64_t> versions_;  // stage 3: of the first member when it was gathered
  std::vector<Handle> gathers_;    // stage 3: on their way
  size_t latest_gather_ = 0;
  std::vector<Tensor> shares_;  // stage 3: [share_size]
};

}  // namespace moebius
