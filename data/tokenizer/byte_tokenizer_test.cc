#include "data/tokenizer/byte_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/random.h"

namespace moebius {
namespace {

TEST(ByteTokenizer, RoundTripOfAnyBytes) {
  const RandomStream random(1, "bytes");
  const ByteTokenizer tokenizer;
  for (uint64_t trial = 0; trial < 50; ++trial) {
    std::string bytes;
    for (uint64_t i = 0; i < 7 * trial; ++i) {
      bytes.push_back(static_cast<char>(random.Below(trial * 1000 + i, 256)));
    }
    std::vector<int32_t> ids;
    tokenizer.Encode(bytes, ids);
    EXPECT_EQ(ids.size(), bytes.size());
    EXPECT_EQ(tokenizer.Decode(ids), bytes);
  }
}

TEST(ByteTokenizer, TheSeparatorHasNoBytes) {
  const ByteTokenizer tokenizer;
  const std::vector<int32_t> ids = {tokenizer.separator(), 'a', tokenizer.separator(), 255};
  EXPECT_EQ(tokenizer.Decode(ids), "a\xff");
  EXPECT_EQ(tokenizer.separator(), tokenizer.vocab_size() - 1);
}

TEST(ByteTokenizer, FileMapsByteLevelCharactersToBytes) {
  const auto file = nlohmann::json::parse(ByteTokenizer().file_content());
  const auto& vocabulary = file["model"]["vocab"];
  EXPECT_EQ(vocabulary.size(), 257u);
  EXPECT_EQ(vocabulary["A"], 65);
  EXPECT_EQ(vocabulary["\u0120"], 32);  // the space, as in byte-level BPE vocabularies
  EXPECT_EQ(vocabulary["\u010a"], 10);
  EXPECT_EQ(vocabulary["\u00ff"], 255);
  EXPECT_EQ(file["added_tokens"][0]["id"], 256);
}

}  // namespace
}  // namespace moebius
