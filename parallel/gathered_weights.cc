#include "parallel/gathered_weights.h"

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

Tensor GatheredWeights::Lease(Parameter& parameter, WeightFormat format, DType compute) {
  const auto found = bucket_of_.find(&parameter);
  CHECK(found != bucket_of_.end()) << parameter.name << " is in no bucket";
  const size_t bucket = found->second;
  std::vector<size_t>& latest = latest_[buckets_[bucket].group];
  std::erase(latest, bucket);
  latest.insert(latest.begin(), bucket);
  if (latest.size() > kKept) {
    values_.Release(latest.back());
    latest.pop_back();
  }
  values_.Gather(bucket);
  return images_.Lease(parameter, format, compute);
}

}  // namespace moebius
