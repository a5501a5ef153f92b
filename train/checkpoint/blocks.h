// Blocks of a row-major tensor: the ranges [begin, end) of its dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/placement/placement.h"
#include "core/tensor/tensor.h"

namespace moebius {

struct Block {
  std::vector<int64_t> begin;
  std::vector<int64_t> end;

  int64_t num_elements() const;      // 1 without dimensions
  int64_t elements_per_row() const;  // of the dimensions behind the leading one
};

// The element at which a piece begins in the tensor that holds it. A holder has the dimensions of
// the global tensor, and local_begin counts its rows; or it is flat, for pieces that are no whole
// rows of it, and local_begin counts its elements.
bool IsFlat(const Shape& holder, const Shape& global);
int64_t FirstElement(const Piece& piece, bool holder_is_flat);

// What two blocks of one tensor share; nothing if they do not meet.
std::optional<Block> Intersect(const Block& a, const Block& b);

// Copies `region` from the bytes of block `source` to the bytes of block `target`, both row-major.
// REQUIRES: `region` lies in both.
void CopyRegion(const Block& region, const Block& source, std::span<const std::byte> source_bytes,
                const Block& target, std::span<std::byte> target_bytes, int64_t element_bytes);

}  // namespace moebius
