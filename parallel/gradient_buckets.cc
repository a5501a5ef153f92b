#include "parallel/gradient_buckets.h"

#include <cstring>
#include <utility>

#include "kernels/elementwise.h"

namespace moebius {
namespace {

void Clear(const Tensor& x) {
  if (!x.device().is_meta() && x.size() > 0) {
    std::memset(x.raw(), 0, static_cast<size_t>(x.bytes()));
  }
}

}  // namespace

GradientBuckets::GradientBuckets(std::span<Parameter* const> parameters, Mesh& mesh,
                                 Context& context, const BucketOptions& options)
    : context_(context),
      stage_(options.stage),
      buckets_(MakeBuckets(parameters, mesh, options.max_bytes)),
      gradients_(buckets_.size()) {
  for (size_t b = 0; b < buckets_.size(); ++b) {
    const Bucket& bucket = buckets_[b];
    for (const auto& [parameter, offset] : bucket.members) {
      bucket_of_[parameter] = b;
      gradients_[b].num_uses += parameter->num_uses;
    }
    if (shards_gradients()) {
      gradients_[b].share = context.Zeros(bucket.dtype, {bucket.share_size()}, "gradients");
    } else {
      Allocate(b);
      gradients_[b].share = bucket.ShareOf(gradients_[b].flat);
    }
  }
  BeginStep();
}

void GradientBuckets::Allocate(size_t b) {
  const Bucket& bucket = buckets_[b];
  Gradients& gradients = gradients_[b];
  gradients.flat = context_.Empty(bucket.dtype, {bucket.size}, "gradients");
  bucket.ClearGaps(gradients.flat);
  for (const Bucket::Member& member : bucket.members) {
    member.parameter->gradient = bucket.View(gradients.flat, member);
    member.parameter->gradient_written = false;
  }
}

void GradientBuckets::BeginStep() {
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (const auto& [parameter, offset] : buckets_[b].members) parameter->gradient_written = false;
    gradients_[b].started = gradients_[b].has_share = false;
  }
  next_ = 0;
  starts_early_ = reduced_ = false;
}

void GradientBuckets::BeginMicroBatch(bool last) {
  for (Gradients& gradients : gradients_) {
    gradients.num_opened = 0;
    if (shards_gradients()) gradients.started = false;
  }
  if (shards_gradients()) next_ = 0;
  starts_early_ = last || shards_gradients();
  reduced_ = false;
}

GradientSlot GradientBuckets::Open(Parameter& parameter) {
  const auto found = bucket_of_.find(&parameter);
  CHECK(found != bucket_of_.end()) << parameter.name << " is in no bucket";
  Gradients& gradients = gradients_[found->second];
  CHECK(!gradients.started) << parameter.name << " has more than its " << parameter.num_uses
                            << " uses in a micro-batch: its bucket is already being reduced";
  if (!gradients.flat.defined()) Allocate(found->second);
  ++gradients.num_opened;
  return {parameter.gradient, std::exchange(parameter.gradient_written, true)};
}

void GradientBuckets::Written() {
  if (!starts_early_) return;
  while (next_ < buckets_.size() && gradients_[next_].num_opened >= gradients_[next_].num_uses) {
    StartNext();
  }
  if (next_ > 0) gradients_[next_ - 1].handle.Poll();  // all that is under way goes on
}

void GradientBuckets::ClearUnwritten(size_t b) {
  for (const auto& [parameter, offset] : buckets_[b].members) {
    if (!std::exchange(parameter->gradient_written, true)) Clear(parameter->gradient);
  }
}

void GradientBuckets::StartNext() {
  const size_t b = next_++;
  const Bucket& bucket = buckets_[b];
  Gradients& gradients = gradients_[b];
  if (!gradients.flat.defined()) Allocate(b);
  ClearUnwritten(b);
  gradients.started = true;
  if (shards_gradients()) return StartSharded(b);
  gradients.handle = stage_ == ZeroStage::kReplicated
                         ? bucket.group->AllReduce(gradients.flat)
                         : bucket.group->ReduceScatter(gradients.flat, gradients.share);
}

void GradientBuckets::StartSharded(size_t b) {
  if (b > 0) Finish(b - 1);
  Gradients& gradients = gradients_[b];
  gradients.sum = gradients.has_share ? context_.Empty(gradients.share.dtype(),
                                                       gradients.share.shape(), "gradients")
                                      : gradients.share;
  gradients.handle = buckets_[b].group->ReduceScatter(gradients.flat, gradients.sum);
}

void GradientBuckets::Finish(size_t b) {
  Gradients& gradients = gradients_[b];
  gradients.handle.Wait();
  if (!shards_gradients() || !gradients.flat.defined()) return;
  if (std::exchange(gradients.has_share, true)) {
    kernels::Add(gradients.share, gradients.sum, gradients.share, context_);
  }
  gradients.sum = gradients.flat = Tensor();
  for (const auto& [parameter, offset] : buckets_[b].members) parameter->gradient = Tensor();
}

void GradientBuckets::ReduceAll() {
  while (next_ < buckets_.size()) StartNext();
  for (size_t b = 0; b < buckets_.size(); ++b) Finish(b);
  starts_early_ = false;
  reduced_ = true;
}

void GradientBuckets::EndMicroBatch() {
  if (shards_gradients()) ReduceAll();
}

void GradientBuckets::Reduce() {
  if (!reduced_) ReduceAll();
}

Tensor GradientBuckets::Own(size_t b) const {
  return stage_ == ZeroStage::kReplicated ? gradients_[b].flat : gradients_[b].share;
}

int64_t GradientBuckets::own_begin(size_t b) const {
  return stage_ == ZeroStage::kReplicated ? 0 : buckets_[b].share_begin();
}

int64_t GradientBuckets::own_size(size_t b) const {
  return stage_ == ZeroStage::kReplicated ? buckets_[b].size : buckets_[b].share_size();
}

Tensor GradientBuckets::Share(size_t b) const { return gradients_[b].share; }

}  // namespace moebius
