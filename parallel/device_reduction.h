// Sums over ranks on their devices: every rank gets the parts of its share from all, adds them up
// in rank order and, if all want the whole, gives its share to all. So sums have the order, and the
// bits, of those on the host (parallel/communicator.h), BF16 is added up in F32, and as many bytes
// move as in a ring. A library's own sums have an order of their own and round BF16 on the way.
#pragma once

#include "kernels/device_collectives.h"

namespace moebius {

struct DeviceReduction {
  int rank = 0, size = 1;  // of the group
  DType dtype = DType::kF32, out_dtype = DType::kF32;
  bool maximum = false;

  // What both need beside their operands, at most kScratchBytes or a few elements of each rank.
  int64_t ScratchBytes(int64_t share) const;

  // out [share] = the sum of this rank's part of `all` [size * share]. `out` may be its own place.
  void Scatter(DeviceGroup& group, const std::byte* all, int64_t share, std::byte* out,
               std::byte* scratch) const;

  // x [count] = the sum. The scratch is that of a share of Share(count).
  void All(DeviceGroup& group, std::byte* x, int64_t count, std::byte* scratch) const;
  int64_t Share(int64_t count) const { return (count + size - 1) / size; }

 private:
  int64_t Piece(int64_t share) const;
  void AllAtOnce(DeviceGroup& group, std::byte* x, int64_t count, std::byte* scratch) const;
  void Combine(DeviceGroup& group, const std::byte* parts, int64_t stride, int64_t count,
               std::byte* out) const;
};

}  // namespace moebius
