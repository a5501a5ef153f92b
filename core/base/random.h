// Random numbers as functions of (seed, stream name, index), so that every rank can draw any
// element and no layout changes a draw. Philox4x32-10: Salmon et al., "Parallel Random Numbers: As
// Easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace moebius {

// 10 rounds of Philox on one counter block.
std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A named stream. Thread-safe: it has no state.
class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name);

  uint64_t Bits(uint64_t index) const;
  double Uniform(uint64_t index) const;                  // [0, 1), 53 bits
  double Normal(uint64_t index) const;                   // mean 0, variance 1
  uint64_t Below(uint64_t index, uint64_t bound) const;  // [0, bound), bound >= 1

 private:
  std::array<uint32_t, 4> Block(uint64_t index) const;
  std::array<uint32_t, 2> key_;
  uint64_t name_hash_;
};

// A permutation of [0, size) that needs no table: element `index` of the permutation that (stream)
// names. A four-round Feistel network with cycle walking; O(1) expected.
uint64_t PermutedIndex(const RandomStream& stream, uint64_t index, uint64_t size);

}  // namespace moebius
