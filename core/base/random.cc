#include "core/base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace moebius {
namespace {

uint64_t Fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001B3ull;
  return hash;
}

uint64_t Join(uint32_t low, uint32_t high) { return low | uint64_t{high} << 32; }

double ToUnit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

}  // namespace

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, std::string_view name)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      name_hash_(Fnv1a(name)) {}

std::array<uint32_t, 4> RandomStream::Block(uint64_t index) const {
  return Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                 static_cast<uint32_t>(name_hash_), static_cast<uint32_t>(name_hash_ >> 32)},
                key_);
}

uint64_t RandomStream::Bits(uint64_t index) const {
  const auto block = Block(index);
  return Join(block[0], block[1]);
}

double RandomStream::Uniform(uint64_t index) const { return ToUnit(Bits(index)); }

double RandomStream::Normal(uint64_t index) const {  // Box-Muller
  const auto block = Block(index);
  const double u = 1.0 - ToUnit(Join(block[0], block[1]));
  const double v = ToUnit(Join(block[2], block[3]));
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t RandomStream::Below(uint64_t index, uint64_t bound) const {
  CHECK_GE(bound, 1u) << "an empty range has no element";
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Bits(index)) * bound) >> 64);
}

uint64_t PermutedIndex(const RandomStream& stream, uint64_t index, uint64_t size) {
  CHECK_LT(index, size) << "outside the permutation";
  const int half = (std::bit_width(size - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {
    uint64_t left = index >> half, right = index & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (stream.Bits(round << 60 | right) & mask);
      left = right;
      right = mixed;
    }
    index = left << half | right;
  } while (index >= size);
  return index;
}

}  // namespace moebius
