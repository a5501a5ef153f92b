#include "parallel/gathered_weights.h"

#include <utility>

namespace moebius {
namespace {

constexpr size_t kKept = 2;  // so that a use across the boundary of two costs nothing

}  // namespace

GatheredWeights::GatheredWeights(const std::vector<Bucket>& buckets, ValueBuckets& values,
                                 Context& context)
    : buckets_(buckets), values_(values), images_(context) {
  for (size_t b = 0; b < buckets.size(); ++b) {
    for (const Bucket::Member& member : buckets[b].members) bucket_of_[member.parameter] = b;
  }
}

size_t GatheredWeights::BucketOf(const Parameter& parameter) const {
  const auto found = bucket_of_.find(&parameter);
  CHECK(found != bucket_of_.end()) << parameter.name << " is in no bucket";
  return found->second;
}

void GatheredWeights::Expect(std::span<Parameter* const> now, std::span<Parameter* const> next) {
  std::set<size_t> expected;
  std::vector<size_t> in_order;
  for (const auto& parameters : {now, next}) {
    for (const Parameter* parameter : parameters) {
      const size_t bucket = BucketOf(*parameter);
      if (expected.insert(bucket).second) in_order.push_back(bucket);
    }
  }
  for (const auto& [group, buckets] : std::exchange(latest_, {})) {
    expected_.insert(buckets.begin(), buckets.end());
  }
  for (const size_t bucket : expected_) {
    if (!expected.contains(bucket)) values_.Release(bucket);
  }
  for (const size_t bucket : in_order) values_.StartGather(bucket);  // travel while this computes
  expected_ = std::move(expected);
}

Tensor GatheredWeights::Lease(Parameter& parameter, WeightFormat format, DType compute) {
  const size_t bucket = BucketOf(parameter);
  if (!expected_.contains(bucket)) KeepLatest(bucket);
  values_.Gather(bucket);
  values_.Poll();
  return images_.Lease(parameter, format, compute);
}

void GatheredWeights::KeepLatest(size_t bucket) {
  std::vector<size_t>& latest = latest_[buckets_[bucket].group];
  std::erase(latest, bucket);
  latest.insert(latest.begin(), bucket);
  if (latest.size() <= kKept) return;
  values_.Release(latest.back());
  latest.pop_back();
}

}  // namespace moebius
