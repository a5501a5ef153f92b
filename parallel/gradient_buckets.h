// The gradients of all parameters, in flat buckets (parallel/bucket.h), and their reduction over
// ranks. What is summed over which ranks is read from each parameter's Placement: the axes on which
// its gradient arrives as a part. Sums are taken in rank order in every stage.
//
//   stage 0     every rank gets the whole sum (all-reduce)
//   stage 1     every rank gets the sum of its share (reduce-scatter): the same bits
//   stage 2, 3  so after every micro-batch, the shares add up over micro-batches; a whole bucket
//               exists only from its first gradient to its reduction, and at most one more is on
//               its way. The sum over micro-batches has another order than in stages 0 and 1.
//               Where micro-batches overlap, buckets are whole until Reduce, as in stage 1.
//
// A bucket is reduced while backward goes on: as soon as all its gradients are written
// (Parameter::num_uses) and the buckets before it have started, so that all ranks start them in one
// order. Those of stages 0 and 1 wait for the last micro-batch.
#pragma once

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

  // Before the first forward of a step. Nothing is zeroed: the first writer of a gradient writes.
  void BeginStep();

  // Around the forward and backward of one micro-batch, whose tape has this as its sink. `last`: no
  // other micro-batch of this step writes a gradient afterwards. Without these two calls, or where
  // micro-batches overlap, everything is reduced in Reduce. All ranks call the same.
  void BeginMicroBatch(bool last);
  void EndMicroBatch();

  // After the last backward of the step; waits for what is on its way. Every rank then holds the
  // sum over its reduction group, or its share. A gradient that nobody here has written counts as
  // zero.
  void Reduce();

  GradientSlot Open(Parameter& parameter) override;
  void Written() override;

  const std::vector<Bucket>& buckets() const { return buckets_; }
  ZeroStage stage() const { return stage_; }

  // What this rank updates of a bucket: all of it in stage 0, else its share.
  int64_t own_begin(size_t bucket) const;
  int64_t own_size(size_t bucket) const;
  Tensor Own(size_t bucket) const;    // [own_size], after Reduce
  Tensor Share(size_t bucket) const;  // [share_size], in every stage, after Reduce

 private:
  struct Gradients {
    Tensor flat;   // [size]; stage 2: only while it is filled
    Tensor share;  // [share size]; stages 0, 1: a view of flat
    Tensor sum;    // stage 2: the micro-batch's share on its way to be added
    int num_uses = 0;
    int num_opened = 0;  // within the micro-batch
    bool started = false;
    bool has_share = false;  // stage 2: an earlier micro-batch has written `share`
    Handle handle;
  };

  bool shards_gradients() const { return stage_ >= ZeroStage::kGradients; }
  void Allocate(size_t bucket);
  void ClearUnwritten(size_t bucket);
  void StartNext();
  void StartSharded(size_t bucket);
  void Finish(size_t bucket);
  void ReduceAll();

  Context& context_;
  const ZeroStage stage_;
  const std::vector<Bucket> buckets_;
  std::vector<Gradients> gradients_;
  std::unordered_map<const Parameter*, size_t> bucket_of_;
  bool starts_early_ = false;
  bool reduced_ = false;  // everything that was written
  size_t next_ = 0;       // bucket to start
};

}  // namespace moebius
