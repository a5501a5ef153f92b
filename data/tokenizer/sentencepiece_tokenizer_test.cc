// Links no protobuf, so that it runs under the sanitizers too.
#include "data/tokenizer/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/files.h"
#include "core/base/random.h"

namespace moebius {
namespace {

using testing::HasSubstr;
using Kind = TokenizerSpec::Kind;

std::vector<std::string> Fixture() {
  std::vector<std::string> documents;
  for (const char* name : {"fables", "code", "notes"}) {
    documents.push_back(ReadFile(absl::StrCat("tests/fixtures/corpus/", name, ".txt")).value());
  }
  return documents;
}

std::unique_ptr<SentencePieceTokenizer> Train(Kind kind,
                                              const std::vector<std::string>& documents) {
  auto tokenizer = SentencePieceTokenizer::Train({.kind = kind, .vocab_size = 600}, documents);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// ThreadSanitizer hangs when a process ends that has opened SentencePiece, which it cannot see
// into.
class PluginTest : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "not under ThreadSanitizer";
#endif
  }
};

class SentencePieceTest : public PluginTest, public testing::WithParamInterface<Kind> {
 protected:
  static const Tokenizer& tokenizer() {
    static const auto bpe = Train(Kind::kBpe, Fixture());
    static const auto unigram = Train(Kind::kUnigram, Fixture());
    return GetParam() == Kind::kBpe ? *bpe : *unigram;
  }
  void ExpectLossless(const std::string& bytes) {
    std::vector<int32_t> ids;
    tokenizer().Encode(bytes, ids);
    for (const int32_t id : ids) {
      ASSERT_TRUE(id >= 0 && id < tokenizer().vocab_size() && id != tokenizer().separator());
    }
    ASSERT_EQ(tokenizer().Decode(ids), bytes);
  }
};
INSTANTIATE_TEST_SUITE_P(Models, SentencePieceTest, testing::Values(Kind::kBpe, Kind::kUnigram),
                         [](const auto& info) {
                           return info.param == Kind::kBpe ? "bpe" : "unigram";
                         });

TEST_P(SentencePieceTest, LearnsTokensOfSeveralBytes) {
  EXPECT_EQ(tokenizer().vocab_size(), 600);
  for (const std::string& document : Fixture()) {
    std::vector<int32_t> ids;
    tokenizer().Encode(document, ids);
    EXPECT_LT(ids.size() * 3, document.size() * 2);
    EXPECT_EQ(tokenizer().Decode(ids), document);
  }
}

TEST_P(SentencePieceTest, LosslessOnHardText) {
  for (const std::string text : {"",
                                 " ",
                                 "  ",
                                 "\n",
                                 " \n\t  x   y\t\n\n ",
                                 "a\r\nb\r",
                                 "<s></s><unk><0x41>",
                                 "\xe2\x96\x81",
                                 "a \xe2\x96\x81 b",
                                 "\xe2\x96\x85",
                                 "e\xcc\x81 \xef\xac\x81 \xc2\xa0\xe3\x80\x80 \xe2\x80\x8b",
                                 "\xef\xbb\xbfmark",
                                 "\xf0\x9f\x98\x80",
                                 "\xed\xa0\x80",
                                 "\xc0\xaf",
                                 "\xf4\x90\x80\x80",
                                 "\xff",
                                 "caf\xc3",
                                 "\xef\xbf\xbd",
                                 "\x01\x02\x7f\xc2\x80"}) {
    ExpectLossless(text);
  }
  ExpectLossless(std::string("a\0b\0\0", 5));
  ExpectLossless(std::string(100000, ' '));
}

TEST_P(SentencePieceTest, LosslessOnRandomBytes) {
  const RandomStream random(7, "bytes");
  const std::string pool = Fixture()[2];
  uint64_t draw = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::string bytes;
    while (bytes.size() < 200) {  // stretches of text with random bytes between
      const uint64_t at = random.Below(draw++, pool.size());
      bytes += pool.substr(at, random.Below(draw++, 30));
      for (uint64_t i = random.Below(draw++, 8); i > 0; --i) {
        bytes.push_back(static_cast<char>(random.Below(draw++, 256)));
      }
    }
    ExpectLossless(bytes);
  }
}

TEST_P(SentencePieceTest, TrainingAgainGivesTheSameModel) {
  EXPECT_EQ(Train(GetParam(), Fixture())->file_content(), tokenizer().file_content());
  const auto loaded = SentencePieceTokenizer::Load("m", tokenizer().file_content());
  ASSERT_TRUE(loaded.ok());
  std::vector<int32_t> a, b;
  tokenizer().Encode("The badger \xff", a);
  (*loaded)->Encode("The badger \xff", b);
  EXPECT_EQ(a, b);
}

TEST(SentencePiece, RepresentablePrefix) {
  EXPECT_EQ(RepresentablePrefix("abc\xc3\xa9"), 5u);
  EXPECT_EQ(RepresentablePrefix("ab\xc3"), 2u);
  EXPECT_EQ(RepresentablePrefix(std::string_view("a\0", 2)), 1u);
  EXPECT_EQ(RepresentablePrefix("a\xe2\x96\x81"), 1u);
  EXPECT_EQ(RepresentablePrefix("\xe2\x96\x82"), 3u);
  EXPECT_EQ(RepresentablePrefix("\xed\xa0\x80"), 0u);
  EXPECT_EQ(RepresentablePrefix("\xf4\x8f\xbf\xbf"), 4u);
}

TEST_F(PluginTest, TrainsOnTextItCannotAllRepresent) {
  std::vector<std::string> documents = Fixture();
  documents[0] += std::string("\xff\0\xe2\x96\x81 more", 10) + std::string(20000, '=');
  EXPECT_EQ(Train(Kind::kBpe, documents)->vocab_size(), 600);
}

TEST_F(PluginTest, ErrorsNameTheField) {
  const auto trained = SentencePieceTokenizer::Train({.kind = Kind::kBpe, .vocab_size = 5000},
                                                     std::vector<std::string>{"a little text"});
  EXPECT_EQ(trained.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(trained.status().message()), HasSubstr("data.tokenizer.vocab_size"));
  const auto loaded = SentencePieceTokenizer::Load("x.model", "not a model");
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("x.model"));
}

}  // namespace
}  // namespace moebius
