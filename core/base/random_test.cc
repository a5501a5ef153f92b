#include "core/base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace moebius {
namespace {

// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, NamesAndSeedsAreIndependent) {
  EXPECT_NE(RandomStream(1, "a").Bits(0), RandomStream(1, "b").Bits(0));
  EXPECT_NE(RandomStream(1, "a").Bits(0), RandomStream(2, "a").Bits(0));
  EXPECT_EQ(RandomStream(1, "a").Bits(7), RandomStream(1, "a").Bits(7));
}

TEST(RandomStream, MomentsOfNormal) {
  constexpr int kDraws = 100000;
  const RandomStream stream(3, "normal");
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.Normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0, 5 * std::sqrt(2.0 / kDraws));
}

TEST(PermutedIndex, IsAPermutation) {
  for (const uint64_t size : {1u, 2u, 3u, 7u, 64u, 1000u}) {
    std::vector<bool> seen(size);
    bool moved = false;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t j = PermutedIndex(RandomStream(5, "epoch"), i, size);
      ASSERT_LT(j, size);
      EXPECT_FALSE(seen[j]);
      seen[j] = true;
      moved |= j != i;
    }
    EXPECT_TRUE(moved || size <= 3);
  }
}

}  // namespace
}  // namespace moebius
