#include "data/text_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>

#include "core/base/random.h"

namespace moebius {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Write(const std::string& name, const std::string& content) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

absl::StatusOr<std::vector<std::string>> Read(const std::string& path) {
  ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path, "text"));
  std::vector<std::string> documents;
  std::string document;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(document));
    if (!more) return documents;
    documents.push_back(document);
  }
}

std::string Error(const std::string& path) { return std::string(Read(path).status().message()); }

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(text.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}

std::string RandomText(size_t size) {
  const RandomStream random(1, "text");
  std::string text;
  for (uint64_t i = 0; i < size; ++i) text.push_back(static_cast<char>('a' + random.Below(i, 20)));
  return text;
}

TEST(TextReader, DocumentsEndAtFormFeedLines) {
  EXPECT_THAT(*Read(Write("a.txt", "one\n\ntwo\n\f\nthree\n\f\n")),
              ElementsAre("one\n\ntwo\n", "three\n"));
  EXPECT_THAT(*Read(Write("a.txt", "one\n\f\n\f\ntwo")), ElementsAre("one\n", "two"));
  EXPECT_THAT(*Read(Write("a.txt", "form \f feed\nin a line\f\n")),
              ElementsAre("form \f feed\nin a line\f\n"));
  EXPECT_THAT(*Read(Write("a.txt", "one\n\f")), ElementsAre("one\n"));
  EXPECT_THAT(*Read(Write("a.txt", "")), ElementsAre());
}

TEST(TextReader, KeepsEveryByteAndLongLines) {
  std::string bytes = RandomText(200000);
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  EXPECT_THAT(*Read(Write("bytes.txt", bytes)), ElementsAre(bytes));
}

TEST(TextReader, Jsonl) {
  const std::string lines =
      "{\"text\": \"a\\n\\u00e9\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"\"}\n{\"text\": \"b\"}";
  EXPECT_THAT(*Read(Write("a.jsonl", lines)), ElementsAre("a\n\xc3\xa9", "b"));
}

TEST(TextReader, JsonErrorsNameTheLine) {
  const std::string good = "{\"text\": \"a\"}\n";
  EXPECT_THAT(Error(Write("b.jsonl", good + "{\"text\": \"a}\n")),
              HasSubstr("b.jsonl:2: invalid JSON"));
  EXPECT_THAT(Error(Write("b.jsonl", good + good + "{\"txt\": \"a\"}\n")),
              HasSubstr("b.jsonl:3: has no key \"text\""));
  EXPECT_THAT(Error(Write("b.jsonl", "{\"text\": 5}\n")),
              HasSubstr("b.jsonl:1: \"text\" is a number"));
  EXPECT_THAT(Error(Write("b.jsonl", "[1]\n")), HasSubstr("b.jsonl:1: is not a JSON object"));
  EXPECT_THAT(Error(Write("b.jsonl", "{\"text\": \"\xff\"}\n")),
              HasSubstr("b.jsonl:1: invalid JSON"));
}

TEST(TextReader, CompressedFiles) {
  const std::string text = RandomText(300000);
  EXPECT_THAT(*Read(Write("a.txt.gz", Gzip(text))), ElementsAre(text));
  EXPECT_THAT(*Read(Write("a.txt.zst", Zstd(text))), ElementsAre(text));
  EXPECT_THAT(*Read(Write("two.txt.gz", Gzip(text) + Gzip("b"))), ElementsAre(text + "b"));
  EXPECT_THAT(*Read(Write("two.txt.zst", Zstd(text) + Zstd("b"))), ElementsAre(text + "b"));
  EXPECT_THAT(*Read(Write("a.jsonl.gz", Gzip("{\"text\":\"x\"}"))), ElementsAre("x"));
}

TEST(TextReader, EveryTruncationOfACompressedFileIsNamed) {
  for (const auto& [name, whole] : {std::pair("t.txt.gz", Gzip(RandomText(200))),
                                    std::pair("t.txt.zst", Zstd(RandomText(200)))}) {
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_THAT(Error(Write(name, whole.substr(0, size))),
                  testing::AllOf(HasSubstr(name), HasSubstr("byte")))
          << size;
    }
  }
}

TEST(TextReader, FlippedBitsOfACompressedFileAreNamed) {
  for (const auto& [name, whole] : {std::pair("f.txt.gz", Gzip(RandomText(200))),
                                    std::pair("f.txt.zst", Zstd(RandomText(200)))}) {
    const std::vector<std::string> before = *Read(Write(name, whole));
    for (size_t i = 0; i < whole.size(); ++i) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
      const auto after = Read(Write(name, bytes));
      if (after.ok()) {
        EXPECT_EQ(*after, before) << i;  // a field without meaning, a time stamp say
      } else {
        EXPECT_THAT(std::string(after.status().message()), HasSubstr(name));
      }
    }
  }
}

TEST(ExpandPatterns, InOrderAndNamedWhenMissing) {
  const std::string folder = testing::TempDir() + "/glob";
  std::filesystem::create_directories(folder);
  for (const char* name : {"glob/b.txt", "glob/a.txt", "glob/c.jsonl"}) Write(name, "x");
  EXPECT_THAT(*ExpandPatterns({folder + "/c.jsonl", folder + "/*.txt"}),
              ElementsAre(folder + "/c.jsonl", folder + "/a.txt", folder + "/b.txt"));
  EXPECT_THAT(std::string(ExpandPatterns({folder + "/*.gz"}).status().message()),
              HasSubstr("/glob/*.gz"));
}

}  // namespace
}  // namespace moebius
