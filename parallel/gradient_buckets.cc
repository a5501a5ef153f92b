#include "parallel/gradient_buckets.h"

#include <algorithm>
#include <utility>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"

namespace moebius {
namespace {

// Buckets on their way, before another one starts: each takes room here and in the communicator.
constexpr size_t kMaxUnderway = 2;

}  // namespace

GradientBuckets::GradientBuckets(std::span<Parameter* const> parameters, Mesh& mesh,
                                 Context& context, const BucketOptions& options)
    : context_(context),
      stage_(options.stage),
      rounds_(options.reduces_in_bf16),
      buckets_(MakeBuckets(parameters, mesh, options.max_bytes)),
      gradients_(buckets_.size()) {
  for (size_t b = 0; b < buckets_.size(); ++b) {
    const Bucket& bucket = buckets_[b];
    CHECK(!rounds_ || bucket.dtype == DType::kF32) << NameOf(bucket.dtype) << " rounded to BF16";
    for (const auto& [parameter, offset] : bucket.members) places_[parameter].bucket = b;
    if (is_sharded(b)) {
      gradients_[b].share = context.Zeros(bucket.dtype, {bucket.share_size()}, "gradients");
    } else {
      Allocate(b);
      gradients_[b].share = bucket.ShareOf(gradients_[b].flat);
    }
  }
  BeginStep(1);
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

void GradientBuckets::BeginStep(int num_micro_batches) {
  CHECK(underway_.empty()) << "the step before was not reduced";
  num_micro_batches_ = num_micro_batches;
  for (auto& [parameter, place] : places_) place.num_opened = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (const auto& [parameter, offset] : buckets_[b].members) parameter->gradient_written = false;
    gradients_[b].started = gradients_[b].has_share = false;
    gradients_[b].num_complete = 0;
    gradients_[b].num_behind = NumBehind(b);
  }
  next_ = 0;
  complete_.clear();
}

size_t GradientBuckets::BucketOf(const Parameter& parameter) const {
  const auto found = places_.find(&parameter);
  CHECK(found != places_.end()) << parameter.name << " is in no bucket";
  return found->second.bucket;
}

GradientSlot GradientBuckets::Open(Parameter& parameter) {
  const size_t b = BucketOf(parameter);
  Gradients& gradients = gradients_[b];
  if (gradients.started) {
    CHECK(is_sharded(b)) << parameter.name << " has more than its " << parameter.num_uses
                         << " uses in a micro-batch: its bucket is already being reduced";
    Finish(b);  // an earlier micro-batch
  }
  if (!gradients.flat.defined()) Allocate(b);
  Count(parameter, places_[&parameter]);
  return {parameter.gradient, std::exchange(parameter.gradient_written, true)};
}

void GradientBuckets::Count(const Parameter& parameter, Place& place) {
  Gradients& gradients = gradients_[place.bucket];
  if (++place.num_opened != (gradients.num_complete + 1) * parameter.num_uses) return;
  if (--gradients.num_behind > 0) return;
  ++gradients.num_complete;
  gradients.num_behind = NumBehind(place.bucket);
  if (is_sharded(place.bucket)) complete_.push_back(place.bucket);
}

int GradientBuckets::NumBehind(size_t b) const {
  const int next = gradients_[b].num_complete + 1;
  return static_cast<int>(std::ranges::count_if(buckets_[b].members, [&](const auto& member) {
    return places_.at(member.parameter).num_opened < next * member.parameter->num_uses;
  }));
}

void GradientBuckets::Written() {
  for (const size_t b : std::exchange(complete_, {})) {
    if (!gradients_[b].started) Start(b);
  }
  if (!shards_gradients()) StartComplete();
  if (!underway_.empty()) gradients_[underway_.back()].handle.Poll();  // all of them go on
}

void GradientBuckets::StartComplete() {
  for (; next_ < buckets_.size(); ++next_) {
    if (!buckets_[next_].has_peers()) continue;
    if (gradients_[next_].num_complete < num_micro_batches_) return;
    Start(next_);
  }
}

void GradientBuckets::ClearUnwritten(size_t b) {
  for (const auto& [parameter, offset] : buckets_[b].members) {
    if (!std::exchange(parameter->gradient_written, true)) Clear(parameter->gradient);
  }
}

void GradientBuckets::Start(size_t b) {
  const size_t room = shards_gradients() ? 1 : kMaxUnderway;
  while (underway_.size() >= room) Finish(underway_.front());
  const Bucket& bucket = buckets_[b];
  Gradients& gradients = gradients_[b];
  if (!gradients.flat.defined()) Allocate(b);
  ClearUnwritten(b);
  if (rounds_) {
    gradients.rounded = context_.Empty(DType::kBF16, {bucket.size}, "gradients.rounded");
    kernels::Cast({.x = gradients.flat, .y = gradients.rounded}, context_);
  }
  gradients.sum = gradients.share;
  if (is_sharded(b) && gradients.has_share) {
    gradients.sum = context_.Empty(bucket.dtype, {bucket.share_size()}, "gradients");
  }
  gradients.started = true;
  underway_.push_back(b);
  gradients.handle = Communicate(b);
}

Handle GradientBuckets::Communicate(size_t b) {
  const Gradients& gradients = gradients_[b];
  const Tensor& parts = gradients.rounded.defined() ? gradients.rounded : gradients.flat;
  Communicator& group = *buckets_[b].group;
  return stage_ == ZeroStage::kReplicated ? group.AllReduce(parts)
                                          : group.ReduceScatter(parts, gradients.sum);
}

void GradientBuckets::Finish(size_t b) {
  Gradients& gradients = gradients_[b];
  std::erase(underway_, b);
  gradients.handle.Wait();
  if (gradients.rounded.defined() && stage_ == ZeroStage::kReplicated) {
    kernels::Cast({.x = gradients.rounded, .y = gradients.flat}, context_);
  }
  gradients.rounded = Tensor();
  if (!is_sharded(b)) return;
  if (std::exchange(gradients.has_share, true)) {
    kernels::Add(gradients.share, gradients.sum, gradients.share, context_);
  }
  gradients.started = false;
  gradients.sum = gradients.flat = Tensor();
  for (const auto& [parameter, offset] : buckets_[b].members) parameter->gradient = Tensor();
}

void GradientBuckets::Reduce() {
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (!buckets_[b].has_peers()) {
      ClearUnwritten(b);
      continue;
    }
    const Gradients& gradients = gradients_[b];
    const bool is_new = !is_sharded(b) || gradients.flat.defined() || !gradients.has_share;
    if (!gradients.started && is_new) Start(b);
  }
  while (!underway_.empty()) Finish(underway_.front());
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
