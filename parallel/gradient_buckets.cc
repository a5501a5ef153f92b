#include "parallel/gradient_buckets.h"

#include <algorithm>
#include <cstring>

namespace moebius {
namespace {

constexpr int64_t kAlignment = 64;  // bytes, of every gradient

}  // namespace

GradientBuckets::GradientBuckets(std::span<Parameter* const> parameters, Mesh& mesh,
                                 Context& context) {
  for (Parameter* parameter : parameters) {
    Bucket& bucket = BucketOf(*parameter, mesh);
    const int64_t unit = kAlignment / SizeOf(bucket.dtype);
    bucket.parameters.push_back(parameter);
    bucket.offsets.push_back(bucket.size);
    bucket.size += (parameter->value.size() + unit - 1) / unit * unit;
  }
  for (Bucket& bucket : buckets_) {
    // Zeros, because the gaps between the gradients are reduced too.
    bucket.flat = context.Zeros(bucket.dtype, {bucket.size}, "gradients");
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      Parameter& parameter = *bucket.parameters[i];
      const int64_t begin = bucket.offsets[i];
      parameter.gradient =
          bucket.flat.Slice(begin, begin + parameter.value.size()).Reshape(parameter.value.shape());
    }
  }
  BeginStep();
}

GradientBuckets::Bucket& GradientBuckets::BucketOf(const Parameter& parameter, Mesh& mesh) {
  std::vector<Axis> partial;
  for (const Replication& replication : parameter.placement.replicated) {
    if (replication.gradient == GradientArrives::kPartial) partial.push_back(replication.axis);
  }
  Communicator* group = &mesh.group_over(partial);
  const DType dtype = parameter.value.dtype();
  const auto found = std::ranges::find_if(
      buckets_, [&](const Bucket& b) { return b.group == group && b.dtype == dtype; });
  if (found != buckets_.end()) return *found;
  Bucket& bucket = buckets_.emplace_back();
  bucket.group = group;
  bucket.dtype = dtype;
  return bucket;
}

void GradientBuckets::BeginStep() {
  for (Bucket& bucket : buckets_) {
    for (Parameter* parameter : bucket.parameters) parameter->gradient_written = false;
  }
}

void GradientBuckets::Reduce() {
  std::vector<Handle> handles;
  for (Bucket& bucket : buckets_) {
    if (bucket.flat.device().is_meta()) continue;
    for (Parameter* parameter : bucket.parameters) {
      const Tensor& gradient = parameter->gradient;
      if (!parameter->gradient_written && gradient.size() > 0) {
        std::memset(gradient.raw(), 0, static_cast<size_t>(gradient.bytes()));
      }
      parameter->gradient_written = true;
    }
    handles.push_back(bucket.group->AllReduce(bucket.flat));
  }
  for (Handle& handle : handles) handle.Wait();
}

}  // namespace moebius
