#include "data/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

namespace moebius {
namespace {

using testing::HasSubstr;

std::string Prefix(const std::string& name) { return testing::TempDir() + "/" + name; }

ShardRecord Write(const std::string& prefix, int64_t vocab_size,
                  const std::vector<std::vector<int32_t>>& documents) {
  auto writer = ShardWriter::Create(prefix, vocab_size);
  EXPECT_TRUE(writer.ok());
  for (const auto& document : documents) EXPECT_TRUE(writer->Append(document).ok());
  return writer->Finish().value();
}

void Overwrite(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class Widths : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Vocabularies, Widths, testing::Values(65499, 65500));

TEST_P(Widths, RoundTrip) {
  const std::string prefix = Prefix("round");
  const int64_t vocab_size = GetParam();
  const auto top = static_cast<int32_t>(vocab_size - 1);
  const ShardRecord record = Write(prefix, vocab_size, {{1, 2, top}, {}, {0, 7}});
  EXPECT_EQ(std::filesystem::file_size(prefix + ".bin"), vocab_size < 65500 ? 10u : 20u);
  const auto shard = Shard::Open(prefix, vocab_size, &record);
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_THAT(shard->document_begins(), testing::ElementsAre(0, 3, 3, 5));
  std::vector<int32_t> tokens(4);
  shard->Read(1, tokens);
  EXPECT_THAT(tokens, testing::ElementsAre(2, top, 0, 7));
}

TEST(Shard, EmptyShard) {
  const std::string prefix = Prefix("empty");
  const ShardRecord record = Write(prefix, 10, {});
  const auto shard = Shard::Open(prefix, 10, &record);
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(shard->num_tokens(), 0);
  EXPECT_EQ(shard->num_documents(), 0);
}

TEST(Shard, IndexHasMegatronsBytes) {
  const std::string prefix = Prefix("bytes");
  Write(prefix, 300, {{258, 3}, {4}});
  using namespace std::string_literals;
  EXPECT_EQ(ReadFile(prefix + ".bin").value(), "\x02\x01\x03\0\x04\0"s);
  EXPECT_EQ(ReadFile(prefix + ".idx").value(),
            "MMIDIDX\0\0"s + "\1\0\0\0\0\0\0\0"s + "\10"s + "\2\0\0\0\0\0\0\0"s +
                "\3\0\0\0\0\0\0\0"s + "\2\0\0\0\1\0\0\0"s + "\0\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0"s +
                "\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"s);
}

TEST(Shard, DocumentsOfSeveralSequences) {  // as Megatron may write them
  const std::string prefix = Prefix("sequences");
  Write(prefix, 300, {{1, 2}, {3}, {4}});
  std::string idx = ReadFile(prefix + ".idx").value();
  int64_t documents = 3;
  std::memcpy(idx.data() + 26, &documents, 8);
  idx.erase(idx.size() - 16, 8);  // document_indices 0, 1, 3
  Overwrite(prefix + ".idx", idx);
  const auto shard = Shard::Open(prefix, 300);
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_THAT(shard->document_begins(), testing::ElementsAre(0, 2, 4));
}

TEST(Shard, EveryTruncationIsFound) {
  const std::string prefix = Prefix("short");
  const ShardRecord record = Write(prefix, 300, {{1, 2, 3}, {4}});
  for (const char* extension : {".idx", ".bin"}) {
    const std::string path = prefix + extension;
    const std::string whole = ReadFile(path).value();
    for (size_t size = 0; size < whole.size(); ++size) {
      Overwrite(path, whole.substr(0, size));
      const absl::Status plain = Shard::Open(prefix, 300).status();
      EXPECT_FALSE(plain.ok()) << path << " of " << size << " bytes";
      EXPECT_THAT(Message(plain), HasSubstr(path));
      EXPECT_FALSE(Shard::Open(prefix, 300, &record).ok());
    }
    Overwrite(path, whole + '\0');
    EXPECT_THAT(Message(Shard::Open(prefix, 300).status()), HasSubstr(path));
    Overwrite(path, whole);
  }
}

TEST(Shard, EveryFlippedBitOfTheIndexIsFoundWithoutChecksums) {
  const std::string prefix = Prefix("flip");
  Write(prefix, 300, {{1, 2, 3}, {4}});
  const std::string whole = ReadFile(prefix + ".idx").value();
  const size_t last_document_index = whole.size() - 8;
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    Overwrite(prefix + ".idx", bytes);
    const absl::Status status = Shard::Open(prefix, 300).status();
    // The middle index may also say 0 or 2 (an empty document): only a checksum tells.
    if (bit / 8 >= last_document_index - 8 && bit / 8 < last_document_index && status.ok())
      continue;
    EXPECT_FALSE(status.ok()) << "bit " << bit;
    EXPECT_THAT(Message(status), HasSubstr("flip.idx"));
  }
}

TEST(Shard, EveryFlippedBitIsFoundWithChecksums) {
  const std::string prefix = Prefix("sums");
  const ShardRecord record = Write(prefix, 300, {{1, 2, 3}, {4}});
  for (const char* extension : {".idx", ".bin"}) {
    const std::string path = prefix + extension;
    const std::string whole = ReadFile(path).value();
    for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
      std::string bytes = whole;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
      Overwrite(path, bytes);
      EXPECT_THAT(Message(Shard::Open(prefix, 300, &record).status()), HasSubstr(path));
    }
    Overwrite(path, whole);
  }
}

TEST(Shard, NamesAnIdOutsideTheVocabulary) {
  const std::string prefix = Prefix("ids");
  Write(prefix, 300, {{1, 2}, {250}});
  EXPECT_THAT(Message(Shard::Open(prefix, 250).status()),
              testing::AllOf(HasSubstr("ids.bin"), HasSubstr("byte 4"), HasSubstr("id 250")));
  EXPECT_TRUE(Shard::Open(prefix, 251).ok());
}

TEST(Shard, MissingFilesAreNamed) {
  const absl::Status status = Shard::Open(Prefix("nothing"), 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("nothing.idx"));
}

}  // namespace
}  // namespace moebius
