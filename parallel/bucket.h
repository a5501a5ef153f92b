// How the parameters of a rank are laid out in flat buckets, for few and large messages: the one
// layout that gradients, values and optimizer states share. A bucket holds whole parameters that
// are reduced over the same ranks; each of these ranks has one equal part of it as its share.
//
//   bucket   | head.weight | gap | final_norm.weight | gap | ... | padding |
//   shares   |        rank 0        |        rank 1        |    rank 2     |
#pragma once

#include <span>
#include <vector>

#include "core/placement/parameter.h"
#include "parallel/mesh.h"

namespace moebius {

// What the ranks that reduce a gradient share out instead of each holding all of it. Rajbhandari et
// al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020, arXiv
// 1910.02054. Each stage includes the ones before it.
enum class ZeroStage { kReplicated = 0, kOptimizer = 1, kGradients = 2, kParameters = 3 };

struct BucketOptions {
  ZeroStage stage = ZeroStage::kReplicated;
  int64_t max_bytes = int64_t{32} << 20;  // but a bucket holds at least one parameter
  bool reduces_in_bf16 = false;           // gradients in F32: see gradient_buckets.h
};

struct Bucket {
  struct Member {
    Parameter* parameter = nullptr;
    int64_t offset = 0;  // of its first element
  };
  // Elements [begin, end) of a member's local tensor, that stand in a range from `offset` on.
  struct Part {
    Parameter* parameter = nullptr;
    int64_t begin = 0;
    int64_t end = 0;
    int64_t offset = 0;
  };

  // The ranks over which the gradients arrive in parts: read from the members' placements.
  Communicator* group = nullptr;
  DType dtype = DType::kF32;
  // False: other ranks hold the same, summed gradients and speak for them.
  bool is_first_replica = true;
  // A single parameter, that other groups hold in the same bucket: pipeline stages that share it.
  bool is_shared = false;
  int64_t size = 0;  // elements; divides by the group's size
  std::vector<Member> members;

  // False: its group is this rank alone, so that nothing is summed, shared out or gathered.
  bool has_peers() const { return group->size() > 1; }

  // The part of the flat bucket that is this rank's share.
  int64_t share_size() const { return size / group->size(); }
  int64_t share_begin() const { return group->rank() * share_size(); }
  Tensor ShareOf(const Tensor& flat) const {  // [size] -> [share_size]
    return flat.Slice(share_begin(), share_begin() + share_size());
  }

  // What elements [begin, end) of the bucket hold of each member: nothing (begin == end) of some.
  std::vector<Part> PartsWithin(int64_t begin, int64_t end) const;

  // A member's elements within the flat bucket, in the member's shape.
  Tensor View(const Tensor& flat, const Member& member) const;

  // Sets the elements that no member owns to zero. They are summed with the others.
  void ClearGaps(const Tensor& flat) const;
};

// Fills buckets from the last parameter to the first: the order in which backward completes
// gradients. Buckets are in the order in which they become complete. A parameter whose gradient
// arrives identical on an axis has a bucket of its own, the same on all ranks of that axis.
// `parameters` come in one order on every rank.
std::vector<Bucket> MakeBuckets(std::span<Parameter* const> parameters, Mesh& mesh,
                                int64_t max_bytes);

}  // namespace moebius
