#include "core/base/checksum.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

TEST(Checksum, KnownAnswers) {  // `xxhsum -H3` of the same bytes
  EXPECT_EQ(ChecksumText(Checksum("")), "xxh3:2d06800538d394c2");
  EXPECT_EQ(ChecksumText(Checksum("moebius")), "xxh3:3f758e771808fb13");
}

TEST(Checksum, OneFlippedBitAndTheSeedChangeIt) {
  std::string text(1000, 'a');
  const uint64_t before = Checksum(text);
  EXPECT_NE(before, Checksum(text, 1));
  text[537] ^= 1;
  EXPECT_NE(before, Checksum(text));
}

TEST(Checksum, PartsGiveTheValueOfTheWhole) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text.push_back(static_cast<char>(i * 7));
  const auto bytes = std::as_bytes(std::span(text));
  StreamingChecksum parts;
  for (size_t at = 0; at < bytes.size(); at += 333) {
    parts.Add(bytes.subspan(at, std::min<size_t>(333, bytes.size() - at)));
  }
  EXPECT_EQ(parts.value(), Checksum(text));
}

}  // namespace
}  // namespace moebius
