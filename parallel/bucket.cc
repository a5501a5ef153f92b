#include "parallel/bucket.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include "core/tensor/copy.h"

namespace moebius {
namespace {

constexpr int64_t kAlignmentBytes = 64;  // of every member and every share

int64_t Aligned(int64_t elements, DType dtype) {
  const int64_t unit = kAlignmentBytes / SizeOf(dtype);
  return (elements + unit - 1) / unit * unit;
}

// An empty bucket of the kind that the parameter belongs to.
Bucket KindOf(const Parameter& parameter, Mesh& mesh) {
  Bucket bucket;
  bucket.dtype = parameter.value.dtype();
  std::vector<Axis> partial;
  for (const Replication& replication : parameter.placement.replicated) {
    if (replication.gradient == GradientArrives::kPartial) {
      partial.push_back(replication.axis);
    } else {
      bucket.is_shared = true;
      if (mesh.position().index_on(replication.axis) != 0) bucket.is_first_replica = false;
    }
  }
  bucket.group = &mesh.group_over(partial);
  return bucket;
}

// Aligned elements of a rank's equal share, rounded up: where buckets end must not depend on the
// rank.
int64_t NominalSize(const Parameter& parameter, Mesh& mesh) {
  int64_t size = parameter.placement.global_shape.num_elements();
  for (const Cut& cut : parameter.placement.cuts) {
    const int ranks = mesh.position().size_of(cut.axis);
    size = (size + ranks - 1) / ranks;
  }
  return Aligned(size, parameter.value.dtype());
}

bool SameKind(const Bucket& a, const Bucket& b) {
  return a.group == b.group && a.dtype == b.dtype && !a.is_shared && !b.is_shared;
}

}  // namespace

std::vector<Bucket::Part> Bucket::PartsWithin(int64_t begin, int64_t end) const {
  std::vector<Part> parts;
  for (const auto& [parameter, offset] : members) {
    const int64_t n = parameter->value.size();
    const int64_t first = std::clamp<int64_t>(begin - offset, 0, n);
    const int64_t last = std::clamp<int64_t>(end - offset, 0, n);
    const int64_t at = std::clamp<int64_t>(offset + first - begin, 0, end - begin);
    parts.push_back({parameter, first, last, at});
  }
  return parts;
}

Tensor Bucket::View(const Tensor& flat, const Member& member) const {
  const Tensor& value = member.parameter->value;
  return flat.Slice(member.offset, member.offset + value.size()).Reshape(value.shape());
}

void Bucket::ClearGaps(const Tensor& flat) const {
  int64_t end = 0;
  for (const auto& [parameter, offset] : members) {
    Clear(flat.Slice(end, offset));
    end = offset + parameter->value.size();
  }
  Clear(flat.Slice(end, size));
}

std::vector<Bucket> MakeBuckets(std::span<Parameter* const> parameters, Mesh& mesh,
                                int64_t max_bytes) {
  std::vector<Bucket> full;
  struct Open {
    Bucket bucket;
    int64_t nominal_bytes = 0;
  };
  std::vector<Open> open;  // one of a kind
  for (Parameter* parameter : std::views::reverse(parameters)) {
    const Bucket kind = KindOf(*parameter, mesh);
    auto last = std::ranges::find_if(open, [&](const Open& o) { return SameKind(o.bucket, kind); });
    if (last == open.end()) last = open.insert(open.end(), Open{kind, 0});
    const int64_t bytes = NominalSize(*parameter, mesh) * SizeOf(kind.dtype);
    if (!last->bucket.members.empty() && last->nominal_bytes + bytes > max_bytes) {
      full.push_back(std::exchange(last->bucket, kind));
      last->nominal_bytes = 0;
    }
    last->bucket.members.push_back({parameter, last->bucket.size});
    last->bucket.size += Aligned(parameter->value.size(), kind.dtype);
    last->nominal_bytes += bytes;
  }
  for (Open& last : open) full.push_back(std::move(last.bucket));

  const auto completed_by = [&](const Bucket& bucket) {
    return std::ranges::find(parameters, bucket.members.back().parameter) - parameters.begin();
  };
  std::ranges::sort(full, std::ranges::greater(), completed_by);
  for (Bucket& bucket : full) {
    const int n = bucket.group->size();
    bucket.size = n * Aligned((bucket.size + n - 1) / n, bucket.dtype);
  }
  return full;
}

}  // namespace moebius
