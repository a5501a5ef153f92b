#include "core/base/files.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace moebius {
namespace {

std::string Path(const std::string& name) { return testing::TempDir() + "/" + name; }

TEST(Files, WritesAndReadsBack) {
  const std::string path = Path("a.txt");
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomically(path, "two").ok());
  EXPECT_EQ(ReadFile(path).value(), "two");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(Files, ErrorsNameTheFile) {
  const auto missing = ReadFile(Path("missing"));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("missing"), absl::string_view::npos);
  EXPECT_FALSE(WriteFileAtomically(Path("no/such/folder"), "x").ok());
  EXPECT_FALSE(MappedFile::Open(testing::TempDir()).ok());
}

TEST(OutputFile, WritesInPiecesAndAppends) {
  const std::string path = Path("o.bin");
  ASSERT_TRUE(WriteFileAtomically(path, "what was there before").ok());
  auto file = OutputFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Write("abc").ok());
  ASSERT_TRUE(file->WriteAt(1, std::as_bytes(std::span("X", 1))).ok());
  EXPECT_EQ(file->size(), 3);
  ASSERT_TRUE(file->Close().ok());
  auto more = OutputFile::Append(path);
  ASSERT_TRUE(more.ok());
  ASSERT_TRUE(more->Write("d").ok());
  ASSERT_TRUE(more->Close().ok());
  EXPECT_EQ(ReadFile(path).value(), "aXcd");
}

TEST(OutputFile, AFullDeviceIsAnErrorThatNamesTheFile) {
  auto file = OutputFile::Append("/dev/full");
  ASSERT_TRUE(file.ok());
  const absl::Status status = file->Write("x");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("/dev/full"), absl::string_view::npos);
}

TEST(FileLock, IsHeldByOneAtATime) {
  const std::string path = Path("a.lock");
  {
    auto lock = FileLock::Acquire(path);
    ASSERT_TRUE(lock.ok()) << lock.status();
    const FileLock moved = *std::move(lock);
    const absl::Status second = FileLock::Acquire(path).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(second.message().find("held by process "), absl::string_view::npos);
  }
  EXPECT_TRUE(FileLock::Acquire(path).ok());
}

TEST(MappedFile, HoldsTheBytes) {
  const std::string path = Path("m.bin");
  ASSERT_TRUE(WriteFileAtomically(path, "abc").ok());
  auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  const MappedFile moved = *std::move(file);
  ASSERT_EQ(moved.bytes().size(), 3u);
  EXPECT_EQ(static_cast<char>(moved.bytes()[2]), 'c');
  ASSERT_TRUE(WriteFileAtomically(path, "").ok());
  EXPECT_TRUE(MappedFile::Open(path)->bytes().empty());
}

}  // namespace
}  // namespace moebius
