#include "parallel/value_buckets.h"

#include "core/tensor/copy.h"

namespace moebius {
namespace {

Tensor Flat(const Tensor& x) { return x.Reshape({x.size()}); }

}  // namespace

ValueBuckets::ValueBuckets(const std::vector<Bucket>& buckets, ZeroStage stage, Context& context)
    : buckets_(buckets),
      stage_(stage),
      context_(context),
      flats_(buckets.size()),
      versions_(buckets.size()),
      gathers_(buckets.size()),
      shares_(buckets.size()) {
  if (stage == ZeroStage::kReplicated) return;
  for (size_t b = 0; b < buckets.size(); ++b) {
    is_sharded(b) ? MoveIntoShare(b) : MoveIntoBucket(b);
  }
}

void ValueBuckets::MoveIntoBucket(size_t b) {
  flats_[b] = context_.Zeros(buckets_[b].dtype, {buckets_[b].size}, "parameters");
  for (const Bucket::Member& member : buckets_[b].members) {
    const Tensor place = buckets_[b].View(flats_[b], member);
    Copy(member.parameter->value, place);
    member.parameter->value = place;
  }
}

void ValueBuckets::MoveIntoShare(size_t b) {
  const Bucket& bucket = buckets_[b];
  const int64_t begin = bucket.share_begin(), size = bucket.share_size();
  shares_[b] = context_.Zeros(bucket.dtype, {size}, "parameters");
  for (const auto& [parameter, first, last, offset] : bucket.PartsWithin(begin, begin + size)) {
    if (parameter->value.device().is_meta()) continue;
    Copy(Flat(parameter->value).Slice(first, last),
         shares_[b].Slice(offset, offset + last - first));
  }
  Release(b);
}

Tensor ValueBuckets::Own(size_t b, const Bucket::Part& part) const {
  if (!is_sharded(b)) return Flat(part.parameter->value).Slice(part.begin, part.end);
  return shares_[b].Slice(part.offset, part.offset + part.end - part.begin);
}

void ValueBuckets::BeginUpdate() {
  for (Handle& gather : gathers_) gather.Wait();
}

Handle ValueBuckets::Updated(size_t b) {
  if (are_sharded()) Release(b);
  const bool gathers = stage_ == ZeroStage::kOptimizer || stage_ == ZeroStage::kGradients;
  if (!gathers || !buckets_[b].has_peers()) return Handle();
  return buckets_[b].group->AllGather(buckets_[b].ShareOf(flats_[b]), flats_[b]);
}

void ValueBuckets::StartGather(size_t b) {
  CHECK(are_sharded());
  if (!is_sharded(b)) return;
  const int64_t version = buckets_[b].members.front().parameter->version;
  if (flats_[b].defined() && versions_[b] == version) return;
  if (flats_[b].defined()) Release(b);
  versions_[b] = version;
  flats_[b] = context_.Empty(buckets_[b].dtype, {buckets_[b].size}, "gathered_parameters");
  gathers_[b] = buckets_[b].group->AllGather(shares_[b], flats_[b]);
}

void ValueBuckets::Gather(size_t b) {
  StartGather(b);
  if (!is_sharded(b)) return;
  gathers_[b].Wait();
  if (buckets_[b].members.front().parameter->value.storage() == flats_[b].storage()) return;
  for (const Bucket::Member& member : buckets_[b].members) {
    member.parameter->value = buckets_[b].View(flats_[b], member);
  }
}

void ValueBuckets::Release(size_t b) {
  CHECK(are_sharded());
  for (const Bucket::Member& member : buckets_[b].members) member.parameter->images.clear();
  if (!is_sharded(b)) return;
  gathers_[b].Wait();
  for (const Bucket::Member& member : buckets_[b].members) {
    Tensor& value = member.parameter->value;
    value = NoValue(value.dtype(), value.shape());
  }
  flats_[b] = Tensor();
}

void ValueBuckets::Poll() {
  for (Handle& gather : gathers_) {
    if (!gather.Poll()) return;  // it has let all of them go on
  }
}

}  // namespace moebius
