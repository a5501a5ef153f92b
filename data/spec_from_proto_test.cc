#include "data/spec_from_proto.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/dataset.h"
#include "data/prepare.h"

namespace moebius {
namespace {

DataConfig Parse(const std::string& text) {
  DataConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  return config;
}

TEST(DataSpecFromProto, TakesEveryField) {
  const DataSpec spec = DataSpecFromProto(
      Parse(R"(domains { name: "a" files: "x" files: "y" } domains { name: "b" files: "z" }
               tokenizer { kind: SENTENCEPIECE model_type: UNIGRAM vocab_size: 999 training_bytes: 5000 }
               held_out_fraction: 0.25 held_out_max_bytes: 77 seed: 9 text_key: "body")"),
      "out");
  EXPECT_EQ(spec.folder, "out");
  ASSERT_EQ(spec.domains.size(), 2u);
  EXPECT_EQ(spec.domains[0].name, "a");
  EXPECT_EQ(spec.domains[0].files, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(spec.tokenizer.kind, TokenizerSpec::Kind::kUnigram);
  EXPECT_EQ(spec.tokenizer.vocab_size, 999);
  EXPECT_EQ(spec.tokenizer.training_bytes, 5000);
  EXPECT_EQ(spec.held_out_fraction, 0.25);
  EXPECT_EQ(spec.held_out_max_bytes, 77);
  EXPECT_EQ(spec.seed, 9u);
  EXPECT_EQ(spec.text_key, "body");
  EXPECT_EQ(DataSpecFromProto(Parse(""), "").tokenizer.kind, TokenizerSpec::Kind::kBytes);
}

// The defaults of the structs are those of the protos.
TEST(DataSpecFromProto, DefaultsAgree) {
  const DataSpec from_proto = DataSpecFromProto(Parse("tokenizer { kind: SENTENCEPIECE }"), "");
  const DataSpec plain;
  EXPECT_EQ(from_proto.tokenizer.kind, TokenizerSpec::Kind::kBpe);
  EXPECT_EQ(from_proto.tokenizer.vocab_size, plain.tokenizer.vocab_size);
  EXPECT_EQ(from_proto.tokenizer.training_bytes, plain.tokenizer.training_bytes);
  EXPECT_EQ(from_proto.held_out_fraction, plain.held_out_fraction);
  EXPECT_EQ(from_proto.held_out_max_bytes, plain.held_out_max_bytes);
  EXPECT_EQ(from_proto.seed, plain.seed);
  EXPECT_EQ(from_proto.text_key, plain.text_key);
}

// SentencePiece brings a protobuf of its own: both must work in one process, in either order.
TEST(SentencePiece, TrainsBesideProtobuf) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers refuse RTLD_DEEPBIND";
#endif
  const std::string folder = testing::TempDir() + "/beside";
  std::filesystem::remove_all(folder);
  const std::string text =
      R"(domains { name: "notes" files: "tests/fixtures/corpus/notes.txt" }
         tokenizer { kind: SENTENCEPIECE vocab_size: 400 })";
  const DataSpec spec = DataSpecFromProto(Parse(text), folder);
  const auto outcome = Prepare(spec, [](const std::string&, int64_t, int64_t) {});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(Dataset::Open(folder)->vocab_size(), 400);
  EXPECT_EQ(DataSpecFromProto(Parse(text), folder).tokenizer.vocab_size, 400);
}

}  // namespace
}  // namespace moebius
