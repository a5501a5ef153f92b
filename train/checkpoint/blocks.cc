#include "train/checkpoint/blocks.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"

namespace moebius {
namespace {

int64_t Extent(const Block& block, size_t dimension) {
  return block.end[dimension] - block.begin[dimension];
}

// The element of `block` at which the global position `at` stands.
int64_t OffsetIn(const Block& block, std::span<const int64_t> at) {
  int64_t offset = 0;
  for (size_t d = 0; d < at.size(); ++d)
    offset = offset * Extent(block, d) + at[d] - block.begin[d];
  return offset;
}

}  // namespace

int64_t Block::num_elements() const {
  int64_t count = 1;
  for (size_t d = 0; d < begin.size(); ++d) count *= Extent(*this, d);
  return count;
}

int64_t Block::elements_per_row() const {
  int64_t count = 1;
  for (size_t d = 1; d < begin.size(); ++d) count *= Extent(*this, d);
  return count;
}

bool IsFlat(const Shape& holder, const Shape& global) {
  return holder.rank() == 1 && global.rank() != 1;
}

int64_t FirstElement(const Piece& piece, bool holder_is_flat) {
  if (holder_is_flat) return piece.local_begin;
  return piece.local_begin * Block{piece.begin, piece.end}.elements_per_row();
}

std::optional<Block> Intersect(const Block& a, const Block& b) {
  CHECK_EQ(a.begin.size(), b.begin.size());
  Block shared = a;
  for (size_t d = 0; d < a.begin.size(); ++d) {
    shared.begin[d] = std::max(a.begin[d], b.begin[d]);
    shared.end[d] = std::min(a.end[d], b.end[d]);
    if (shared.begin[d] >= shared.end[d]) return std::nullopt;
  }
  return shared;
}

void CopyRegion(const Block& region, const Block& source, std::span<const std::byte> source_bytes,
                const Block& target, std::span<std::byte> target_bytes, int64_t element_bytes) {
  // The dimensions from `outer` on are contiguous in both blocks: one run a copy.
  size_t outer = region.begin.size();
  int64_t run = element_bytes;
  while (outer > 0) {
    --outer;
    run *= Extent(region, outer);
    if (Extent(region, outer) != Extent(source, outer)) break;
    if (Extent(region, outer) != Extent(target, outer)) break;
  }
  std::vector<int64_t> at = region.begin;
  for (;;) {
    const int64_t from = OffsetIn(source, at) * element_bytes;
    const int64_t to = OffsetIn(target, at) * element_bytes;
    CHECK_LE(from + run, static_cast<int64_t>(source_bytes.size()));
    CHECK_LE(to + run, static_cast<int64_t>(target_bytes.size()));
    std::memcpy(target_bytes.data() + to, source_bytes.data() + from, static_cast<size_t>(run));
    size_t d = outer;
    while (d > 0 && ++at[d - 1] == region.end[d - 1]) {
      at[d - 1] = region.begin[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

}  // namespace moebius
