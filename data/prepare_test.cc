#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "core/base/files.h"
#include "data/dataset.h"
#include "data/manifest.h"

namespace moebius {
namespace {

using testing::HasSubstr;

constexpr char kCorpus[] = "tests/fixtures/corpus/";

std::string Fresh(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  std::filesystem::remove_all(path);
  return path;
}

void Write(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

DataSpec FixtureSpec(const std::string& folder) {
  DataSpec spec;
  spec.folder = folder;
  for (const char* name : {"fables", "code", "notes"}) {
    spec.domains.push_back({name, {std::string(kCorpus) + name + ".txt"}});
  }
  spec.held_out_fraction = 0.2;
  return spec;
}

absl::StatusOr<PrepareOutcome> Make(const DataSpec& spec) {
  return Prepare(spec,
                 [](const std::string&, int64_t done, int64_t total) { ASSERT_LE(done, total); });
}

std::string Error(const DataSpec& spec) { return std::string(Make(spec).status().message()); }

std::vector<std::string> Documents(const Shard& shard, const Tokenizer& tokenizer) {
  std::vector<std::string> documents;
  const auto begins = shard.document_begins();
  for (size_t d = 0; d + 1 < begins.size(); ++d) {
    std::vector<int32_t> ids(static_cast<size_t>(begins[d + 1] - begins[d]));
    shard.Read(begins[d], ids);
    EXPECT_EQ(ids[0], tokenizer.separator());
    documents.push_back(tokenizer.Decode(ids));
  }
  return documents;
}

std::string FolderBytes(const std::string& folder) {
  std::set<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.insert(entry.path());
  std::string bytes;
  for (const std::string& path : paths) {
    bytes += std::filesystem::path(path).filename().string() + ReadFile(path).value();
  }
  return bytes;
}

TEST(Prepare, EveryDocumentIsOnOneSideWithAllItsBytes) {
  const DataSpec spec = FixtureSpec(Fresh("sides"));
  ASSERT_EQ(*Make(spec), PrepareOutcome::kWritten);
  const absl::StatusOr<Dataset> dataset = Dataset::Open(spec.folder);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ(dataset->domains().size(), 3u);
  EXPECT_EQ(dataset->vocab_size(), 257);
  for (const Domain& domain : dataset->domains()) {
    std::multiset<std::string> written, expected;
    int64_t bytes = 0, held_out_bytes = 0;
    for (const std::string& text : Documents(domain.train.shard, dataset->tokenizer())) {
      written.insert(text);
      bytes += std::ssize(text);
    }
    for (const std::string& text : Documents(domain.held_out.shard, dataset->tokenizer())) {
      EXPECT_FALSE(written.contains(text));
      held_out_bytes += std::ssize(text);
    }
    for (const std::string& text : Documents(domain.held_out.shard, dataset->tokenizer())) {
      written.insert(text);
    }
    std::string rest = ReadFile(kCorpus + domain.name + ".txt").value();
    for (size_t end; (end = rest.find("\f\n")) != std::string::npos; rest.erase(0, end + 2)) {
      expected.insert(rest.substr(0, end));
    }
    EXPECT_EQ(written, expected);
    EXPECT_EQ(domain.train.num_bytes, bytes);
    EXPECT_EQ(domain.held_out.num_bytes, held_out_bytes);
    EXPECT_GE(held_out_bytes, (bytes + held_out_bytes) / 5);
  }
}

TEST(Prepare, TheSameSpecGivesTheSameBytesAndNothingToDo) {
  const DataSpec first = FixtureSpec(Fresh("first")), second = FixtureSpec(Fresh("second"));
  ASSERT_EQ(*Make(first), PrepareOutcome::kWritten);
  ASSERT_EQ(*Make(second), PrepareOutcome::kWritten);
  EXPECT_EQ(FolderBytes(first.folder), FolderBytes(second.folder));
  EXPECT_EQ(*Make(first), PrepareOutcome::kAlreadyThere);
  EXPECT_FALSE(std::filesystem::exists(first.folder + ".tmp"));

  DataSpec other_seed = FixtureSpec(Fresh("seed"));
  other_seed.seed = 2;
  ASSERT_EQ(*Make(other_seed), PrepareOutcome::kWritten);
  EXPECT_NE(ReadFile(first.folder + "/code.heldout.bin").value(),
            ReadFile(other_seed.folder + "/code.heldout.bin").value());
}

TEST(Prepare, AnotherSpecIsNamedAndNothingIsTouched) {
  const DataSpec spec = FixtureSpec(Fresh("kept"));
  ASSERT_TRUE(Make(spec).ok());
  const std::string before = FolderBytes(spec.folder);
  DataSpec other = spec;
  other.held_out_fraction = 0.5;
  EXPECT_THAT(Error(other), HasSubstr("data.held_out_fraction was 0.2, is 0.5"));
  other = spec;
  other.domains.pop_back();
  EXPECT_THAT(Error(other), HasSubstr("data.domains.2"));
  other = spec;
  other.domains[0].files = {std::string(kCorpus) + "notes.txt"};
  EXPECT_THAT(Error(other), HasSubstr("data.domains.0.files.0"));
  EXPECT_EQ(FolderBytes(spec.folder), before);
}

TEST(Prepare, AFolderWithOtherThingsIsRefused) {
  DataSpec spec = FixtureSpec(Fresh("foreign"));
  std::filesystem::create_directories(spec.folder);
  Write(spec.folder + "/precious", "x");
  EXPECT_THAT(Error(spec), HasSubstr("holds no prepared data"));
  EXPECT_TRUE(std::filesystem::exists(spec.folder + "/precious"));
}

TEST(Prepare, WhatAnUndonePreparationLeftIsReplaced) {
  const DataSpec spec = FixtureSpec(Fresh("again"));
  std::filesystem::create_directories(spec.folder + ".tmp");
  Write(spec.folder + ".tmp/half.bin", "x");
  ASSERT_EQ(*Make(spec), PrepareOutcome::kWritten);
  EXPECT_FALSE(std::filesystem::exists(spec.folder + "/half.bin"));
}

TEST(Prepare, DuplicatesStayOnOneSideAcrossDomains) {
  const std::string inputs = Fresh("duplicates");
  std::filesystem::create_directories(inputs);
  std::string shared, a, b;
  for (int i = 0; i < 40; ++i) {
    const std::string number = std::to_string(i);
    shared += "shared " + number + "\n\f\n";
    a += "only in a " + number + "\n\f\n";
    b += "only in b, which is of another size " + number + "\n\f\n";
  }
  Write(inputs + "/a.txt", shared + a + shared);
  Write(inputs + "/b.txt", b + shared);
  DataSpec spec;
  spec.folder = Fresh("duplicates_out");
  spec.domains = {{"a", {inputs + "/a.txt"}}, {"b", {inputs + "/b.txt"}}};
  spec.held_out_fraction = 0.3;
  ASSERT_TRUE(Make(spec).ok());
  const Dataset dataset = *Dataset::Open(spec.folder);
  std::set<std::string> training, held_out;
  for (const Domain& domain : dataset.domains()) {
    for (auto& text : Documents(domain.train.shard, dataset.tokenizer())) training.insert(text);
    for (auto& text : Documents(domain.held_out.shard, dataset.tokenizer())) held_out.insert(text);
  }
  EXPECT_EQ(training.size() + held_out.size(), 120u);
  for (const std::string& text : held_out) EXPECT_FALSE(training.contains(text)) << text;
}

TEST(Prepare, InputErrorsAreNamed) {
  DataSpec spec = FixtureSpec(Fresh("errors"));
  spec.domains[1].files = {"no/such/*.txt"};
  EXPECT_THAT(Error(spec), HasSubstr("no/such/*.txt"));

  const std::string path = testing::TempDir() + "/bad.jsonl";
  Write(path, "{\"text\": \"fine\"}\n{\"txt\": 1}\n");
  spec.domains[1].files = {path};
  EXPECT_THAT(Error(spec), HasSubstr("bad.jsonl:2"));
  Write(path, "\n");
  EXPECT_THAT(Error(spec), HasSubstr("code has no text"));
  Write(path, "{\"text\": \"alone\"}\n");
  EXPECT_THAT(Error(spec), HasSubstr("code has one document only"));
  spec.held_out_fraction = 0;
  EXPECT_TRUE(Make(spec).ok());
  EXPECT_EQ(Dataset::Open(spec.folder)->domains()[1].held_out.shard.num_tokens(), 0);
}

TEST(Prepare, WithSentencePiece) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "see sentencepiece_tokenizer_test.cc";
#endif
  DataSpec spec = FixtureSpec(Fresh("pieces")), again = FixtureSpec(Fresh("pieces_again"));
  spec.tokenizer = again.tokenizer = {TokenizerSpec::Kind::kBpe, 500, 50000};
  ASSERT_EQ(*Make(spec), PrepareOutcome::kWritten);
  ASSERT_EQ(*Make(again), PrepareOutcome::kWritten);
  EXPECT_EQ(FolderBytes(spec.folder), FolderBytes(again.folder));
  EXPECT_EQ(*Make(spec), PrepareOutcome::kAlreadyThere);

  const absl::StatusOr<Dataset> dataset = Dataset::Open(spec.folder);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->vocab_size(), 500);
  for (const Domain& domain : dataset->domains()) {
    const std::string corpus = ReadFile(kCorpus + domain.name + ".txt").value();
    for (const Split* split : {&domain.train, &domain.held_out}) {
      int64_t bytes = 0;
      for (const std::string& text : Documents(split->shard, dataset->tokenizer())) {
        EXPECT_NE(corpus.find(text), std::string::npos);
        bytes += std::ssize(text);
      }
      EXPECT_EQ(split->num_bytes, bytes);
      EXPECT_LT(split->shard.num_tokens(), bytes);
    }
  }
  again.tokenizer.vocab_size = 501;
  EXPECT_THAT(Error(again), HasSubstr("data.tokenizer.vocab_size was 500, is 501"));
}

TEST(Dataset, EveryDamagedByteIsNamed) {
  const std::string inputs = Fresh("tiny.txt");
  Write(inputs, "one\n\f\ntwo\n\f\nthree\n");
  DataSpec spec;
  spec.folder = Fresh("damaged");
  spec.domains = {{"tiny", {inputs}}};
  ASSERT_TRUE(Make(spec).ok());
  ASSERT_TRUE(Dataset::Open(spec.folder).ok());
  for (const auto& entry : std::filesystem::directory_iterator(spec.folder)) {
    const std::string path = entry.path();
    if (path.ends_with(".txt")) continue;  // for people; never read
    const std::string whole = ReadFile(path).value();
    const size_t stride = whole.size() / 100 + 1;
    for (size_t i = 0; i < whole.size(); i += stride) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << i % 8));
      for (const std::string& damaged : {bytes, whole.substr(0, i)}) {
        Write(path, damaged);
        EXPECT_THAT(std::string(Dataset::Open(spec.folder).status().message()),
                    HasSubstr(entry.path().filename().string()))
            << i;
      }
    }
    std::filesystem::remove(path);
    EXPECT_THAT(std::string(Dataset::Open(spec.folder).status().message()),
                HasSubstr(entry.path().filename().string()));
    Write(path, whole);
  }
}

}  // namespace
}  // namespace moebius
