// The gradients of all parameters, in flat buckets (parallel/bucket.h), and their reduction over
// ranks. What is summed over which ranks is read from each parameter's Placement: the axes on which
// its gradient arrives as a part. Sums are taken in rank order in every stage.
//
//   stage 0     every rank gets the whole sum (all-reduce)
//   stage 1     every rank gets the sum of its share (reduce-scatter): the same bits in F32
//   stage 2, 3  so for every micro-batch, and the shares add up: a whole bucket exists only from
//               its first gradient to its reduction. That is one message for each micro-batch
//               instead of one for each step, and another order of the sum over micro-batches.
//
// A bucket is reduced while backward goes on, as soon as all uses of its parameters
// (Parameter::num_uses) are written: those of all micro-batches in stages 0 and 1, where all ranks
// start the buckets in their order; those of one more micro-batch in stages 2 and 3. In which order
// a pipeline runs forward, backward and weight gradients does not matter, as long as all ranks of a
// group write gradients in one order.
//
// Reduction in BF16: a rank adds up its gradients in their own dtype, and what travels is BF16.
// Each rank's part is rounded once, when it starts on its way. Ranks are added up in F32, and in
// stages 1 to 3 the sum stays F32; in stage 0 it is rounded once more, since it travels back.
//
// A bucket whose group is one rank is never reduced, rounded or shared out: in every stage its
// gradients add up in place.
#pragma once

#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tape/tape.h"
#include "core/tensor/context.h"
#include "parallel/bucket.h"
#include "parallel/mesh.h"

namespace moebius {

class GradientBuckets final : public GradientSink {
 public:
  // Gives every parameter its `gradient`: a view with the shape and dtype of its `value`, in stages
  // 0 and 1 for good. The parameters come in one order on every rank; they, the mesh and the
  // context outlive this.
  GradientBuckets(std::span<Parameter* const> parameters, Mesh& mesh, Context& context,
                  const BucketOptions& options = {});

  // Before the first forward of a step of so many micro-batches. Nothing is zeroed: the first
  // writer of a gradient writes.
  void BeginStep(int num_micro_batches);

  // After the last backward of the step: starts what is not complete, and waits for what is on its
  // way. Every rank then holds the sum over its reduction group, or its share. A gradient that
  // nobody here has written counts as zero.
  void Reduce();

  GradientSlot Open(Parameter& parameter) override;
  void Written() override;

  const std::vector<Bucket>& buckets() const { return buckets_; }
  size_t BucketOf(const Parameter& parameter) const;
  ZeroStage stage() const { return stage_; }

  // What this rank updates of a bucket: all of it in stage 0, else its share.
  int64_t own_begin(size_t bucket) const;
  int64_t own_size(size_t bucket) const;
  Tensor Own(size_t bucket) const;    // [own_size], after Reduce
  Tensor Share(size_t bucket) const;  // [share_size], in every stage, after Reduce

 private:
  struct Gradients {
    Tensor flat;     // [size]; sharded: only while it is filled and reduced
    Tensor share;    // [share size]; not sharded: a view of flat
    Tensor rounded;  // [size] BF16: what travels, where that is not `flat`
    Tensor sum;      // sharded: the share that is on its way to be added
    Handle handle;
    bool started = false;    // sharded: and not finished
    bool has_share = false;  // sharded: an earlier micro-batch has written `share`
    int num_complete = 0;    // micro-batches of which every use is opened
    int num_behind = 0;      // members of which a use of the next one is not
  };
  struct Place {
    size_t bucket = 0;
    int num_opened = 0;  // uses in this step
  };

  bool shards_gradients() const { return stage_ >= ZeroStage::kGradients; }
  bool is_sharded(size_t b) const { return shards_gradients() && buckets_[b].has_peers(); }
  void Allocate(size_t bucket);
  void Count(const Parameter& parameter, Place& place);
  int NumBehind(size_t bucket) const;
  void ClearUnwritten(size_t bucket);
  void StartComplete();
  void Start(size_t bucket);
  Handle Communicate(size_t bucket);
  void Finish(size_t bucket);

  Context& context_;
  const ZeroStage stage_;
  const bool rounds_;
  const std::vector<Bucket> buckets_;
  std::vector<Gradients> gradients_;
  std::unordered_map<const Parameter*, Place> places_;
  int num_micro_batches_ = 0;
  size_t next_ = 0;               // stages 0, 1: bucket to start
  std::vector<size_t> complete_;  // sharded: to start, once they are written
  std::deque<size_t> underway_;   // oldest first
};

}  // namespace moebius
