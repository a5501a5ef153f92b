// Blocks of a row-major tensor: the ranges [begin, end) of its dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace moebius {

struct Block {
  std::vector<int64_t> begin;
  std::vector<int64_t> end;

  int64_t num_elements() const;      // 1 without dimensions
  int64_t elements_per_row() const;  // of the dimensions behind the leading one
};

// What two blocks of one tensor share; nothing if they do not meet.
std::optional<Block> Intersect(const Block& a, const Block& b);

// Copies `region` from the bytes of block `source` to the bytes of block `target`, both row-major.
// REQUIRES: `region` lies in both.
void CopyRegion(const Block& region, const Block& source, std::span<const std::byte> source_bytes,
                const Block& target, std::span<std::byte> target_bytes, int64_t element_bytes);

}  // namespace moebius
