#include "train/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

namespace moebius {
namespace {

using Description = SafetensorsWriter::Description;

std::string Path() {
  return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() +
         ".safetensors";
}

std::span<const std::byte> Bytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file with the given header and buffer, whether they fit together or not.
std::string FileOf(const std::string& header, const std::string& buffer) {
  const uint64_t size = header.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  return file + header + buffer;
}

absl::Status OpenStatus(const std::string& content) {
  EXPECT_TRUE(WriteFileAtomically(Path(), content).ok());
  return SafetensorsFile::Open(Path()).status();
}

bool Says(const absl::Status& status, const std::string& words) {
  return status.ToString().find(words) != std::string::npos;
}

std::string WriteSample() {
  auto writer = SafetensorsWriter::Create(Path(),
                                          {{"small", DType::kU8, {3}},
                                           {"matrix", DType::kF32, {2, 1}},
                                           {"half", DType::kBF16, {1}},
                                           {"scalar", DType::kF64, {}},
                                           {"none", DType::kI64, {0, 4}},
                                           {"count", DType::kI32, {1}}},
                                          {{"format", "pt"}});
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const auto& [name, bytes] : {std::pair{"small", "abc"},
                                    {"scalar", "SSSSSSSS"},
                                    {"none", ""},
                                    {"count", "cccc"},
                                    {"half", "hh"},
                                    {"matrix", "mmmmMMMM"}}) {
    EXPECT_TRUE(writer->Write(name, Bytes(bytes)).ok());
  }
  EXPECT_TRUE(writer->Close().ok());
  const std::string content = ReadFile(Path()).value();
  EXPECT_EQ(static_cast<int64_t>(content.size()), writer->file_bytes());
  return content;
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  WriteSample();
  auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->entries().size(), 6u);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  const auto matrix = file->Find("matrix");
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->dtype, DType::kF32);
  EXPECT_EQ(matrix->shape, (Shape{2, 1}));
  EXPECT_EQ(std::memcmp(matrix->bytes.data(), "mmmmMMMM", 8), 0);
  EXPECT_EQ(file->Find("scalar")->shape.rank(), 0);
  EXPECT_TRUE(file->Find("none")->bytes.empty());
  const auto missing = file->Find("absent");
  EXPECT_TRUE(absl::IsNotFound(missing.status()));
  EXPECT_TRUE(Says(missing.status(), "absent"));
}

TEST(Safetensors, LayoutIsTheOneOfTheFormat) {
  // Larger elements first, then by name; the buffer begins at a multiple of 8.
  const std::string content = WriteSample();
  uint64_t header;
  std::memcpy(&header, content.data(), 8);
  EXPECT_EQ((8 + header) % 8, 0u);
  EXPECT_EQ(content.substr(8 + header), "SSSSSSSSccccmmmmMMMMhhabc");
  EXPECT_EQ(content.substr(8, 47), R"({"__metadata__":{"format":"pt"},"none":{"dtype")");
}

TEST(Safetensors, EveryTruncationIsFound) {
  const std::string content = WriteSample();
  for (size_t size = 0; size < content.size(); ++size) {
    EXPECT_FALSE(OpenStatus(content.substr(0, size)).ok()) << size;
  }
  EXPECT_TRUE(Says(OpenStatus(content + "x"), "26 bytes")) << "a byte that no tensor owns";
}

TEST(Safetensors, RefusesAHeaderThatIsTooLong) {
  EXPECT_FALSE(OpenStatus("").ok());
  std::string bomb(16, '\xff');
  EXPECT_TRUE(Says(OpenStatus(bomb), "limit"));
  const uint64_t over = 100'000'001;
  std::memcpy(bomb.data(), &over, sizeof over);
  EXPECT_TRUE(Says(OpenStatus(bomb), "limit"));
}

TEST(Safetensors, ReadsWhatOthersPadAndDoNotAlign) {
  const std::string tensor = R"("a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"})";
  EXPECT_TRUE(OpenStatus(FileOf("{" + tensor + "}", "1234")).ok());
  EXPECT_TRUE(OpenStatus(FileOf("{" + tensor + "}   ", "1234")).ok());
  EXPECT_TRUE(OpenStatus(FileOf("{}", "")).ok());
  EXPECT_TRUE(Says(OpenStatus(FileOf(" {" + tensor + "}", "1234")), "begin with"));
}

struct BadHeader {
  const char* header;
  size_t buffer_bytes;
  const char* says;
};

class SafetensorsBadHeader : public testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsBadHeader, IsRefusedWithItsReason) {
  const auto& [header, buffer_bytes, says] = GetParam();
  const std::string path = testing::TempDir() + "/bad.safetensors";
  ASSERT_TRUE(WriteFileAtomically(path, FileOf(header, std::string(buffer_bytes, 'x'))).ok());
  const absl::Status status = SafetensorsFile::Open(path).status();
  EXPECT_FALSE(status.ok()) << header;
  EXPECT_TRUE(Says(status, says)) << status;
  EXPECT_TRUE(Says(status, "bad.safetensors")) << status;
}

#define TENSOR(name, dtype, shape, offsets) \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

INSTANTIATE_TEST_SUITE_P(
    Rules, SafetensorsBadHeader,
    testing::Values(
        BadHeader{"{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("a", "U8", "[1]", "[0,1]") "}",
                  1, "'a': duplicate name"},
        BadHeader{R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
                  "duplicate key 'dtype'"},
        BadHeader{R"({"__metadata__":{"k":"v","k":"v"}})", 0, "duplicate key 'k'"},
        BadHeader{R"({"__metadata__":{},"__metadata__":{}})", 0, "duplicate key"},
        BadHeader{R"({"__metadata__":{"k":1}})", 0, "number"},
        BadHeader{"{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("b", "U8", "[1]", "[2,3]") "}",
                  3, "'b': begins at 2"},
        BadHeader{"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[1,3]") "}",
                  3, "'b': begins at 1"},
        BadHeader{"{" TENSOR("a", "U8", "[1]", "[1,2]") "}", 2, "'a': begins at 1"},
        BadHeader{"{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "are not the 8 bytes"},
        BadHeader{"{" TENSOR("a", "U8", "[1]", "[1,0]") "}", 1, "'a': data_offsets"},
        BadHeader{"{" TENSOR("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows"},
        BadHeader{"{" TENSOR("a", "F64", "[2305843009213693952]", "[0,0]") "}", 0, "overflows"},
        BadHeader{"{" TENSOR("a", "U8", "[18446744073709551615]", "[0,1]") "}", 1, "overflows"},
        BadHeader{"{" TENSOR("a", "U8", "[18446744073709551616]", "[0,1]") "}", 1, "'a'"},
        BadHeader{"{" TENSOR("a", "F16", "[1]", "[0,2]") "}", 2, "'a': dtype F16"},
        BadHeader{"{" TENSOR("a", "U8", "[1,1,1,1,1,1]", "[0,1]") "}", 1, "6 dimensions"},
        BadHeader{"{" TENSOR("a", "U8", "[-1]", "[0,1]") "}", 1, "'a': a negative"},
        BadHeader{"{" TENSOR("a", "U8", "[1.0]", "[0,1]") "}", 1, "'a': not a whole"},
        BadHeader{"{" TENSOR("a", "U8", "[[1]]", "[0,1]") "}", 1, "'a': a list"},
        BadHeader{"{" TENSOR("a", "U8", "1", "[0,1]") "}", 1, "'a': a number"},
        BadHeader{"{" TENSOR("a", "U8", "[1]", "[0,1,1]") "}", 1, "two numbers"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[1]}})", 1, "'a': needs"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "'x'"},
        BadHeader{R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1, "'a': an object"},
        BadHeader{R"({"a":null})", 0, "'a': a null"}, BadHeader{R"({"a":"U8"})", 0, "'a'"},
        BadHeader{"{}{}", 0, "not JSON"}, BadHeader{"{\"a\xff\":1}", 0, "not JSON"},
        BadHeader{"{\0}", 0, "not JSON"}));

}  // namespace
}  // namespace moebius
