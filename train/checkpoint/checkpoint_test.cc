#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "core/base/checksum.h"
#include "core/base/files.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/checkpoint_samples.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

std::string TestFolder() {
  return FreshFolder(testing::UnitTest::GetInstance()->current_test_info()->name());
}

bool Says(const absl::Status& status, const std::string& words) {
  return status.ToString().find(words) != std::string::npos;
}

// Saves the sample of each step from `world_size` ranks.
void SaveSamples(const std::string& directory, int world_size, const std::vector<int64_t>& steps,
                 int64_t resumed_step = 0, int keep_last = 9) {
  ThreadRanks(world_size).Run([&](const RankAgreement& ranks) {
    Arena arena("host", kCpu);
    auto writer = CheckpointWriter::Create({directory, resumed_step, keep_last, ranks}, &arena);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const int64_t step : steps) {
      (*writer)->Save(SampleContent(step, ranks.rank, world_size, arena));
      const auto result = (*writer)->Wait();
      EXPECT_TRUE(result.status.ok()) << result.status;
      EXPECT_EQ(result.step, step);
    }
  });
}

std::vector<int64_t> StepsIn(const std::string& directory) {
  std::vector<int64_t> steps;
  const auto folders = FindCheckpoints(directory).value();
  for (const CheckpointFolder& folder : folders) {
    steps.push_back(folder.step);
  }
  return steps;
}

void Overwrite(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

void FlipBit(const std::string& path, size_t byte, int bit) {
  std::string content = ReadFile(path).value();
  content.at(byte) = static_cast<char>(content[byte] ^ (1 << bit));
  Overwrite(path, content);
}

absl::Status OpenAndVerify(const std::string& path) {
  const auto reader = CheckpointReader::Open(path);
  return reader.ok() ? reader->Verify() : reader.status();
}

class AnyLayout : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(AnyLayout, ReadsWhatAnotherWrote) {
  const auto [writers, readers] = GetParam();
  const std::string directory = FreshFolder(absl::StrCat("layout", writers, "to", readers));
  SaveSamples(directory, writers, {3});
  ThreadRanks(readers).Run([&, readers = readers](const RankAgreement& ranks) {
    const auto newest = OpenNewest(directory, ranks);
    ASSERT_TRUE(newest.ok() && newest->has_value()) << newest.status();
    const CheckpointReader& reader = (*newest)->reader;
    EXPECT_EQ(reader.step(), 3);
    EXPECT_EQ(reader.state().at("tokens"), 3000);
    EXPECT_EQ(reader.ReadTextFile("config.textproto").value(), "a: 1\n");
    Arena arena("host", kCpu);
    const auto tensors = EmptySamples(ranks.rank, readers, arena);
    EXPECT_FALSE(IsSample(tensors, 3));
    for (const CheckpointTensor& tensor : tensors) {
      EXPECT_TRUE(reader.Read(tensor).ok()) << reader.Read(tensor);
    }
    EXPECT_TRUE(IsSample(tensors, 3));
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, AnyLayout,
                         testing::Values(std::pair{1, 1}, std::pair{4, 2}, std::pair{4, 1},
                                         std::pair{4, 3}, std::pair{2, 4}, std::pair{3, 2}));

TEST(Checkpoint, ChecksumsDoNotDependOnTheLayout) {
  const std::string one = FreshFolder("checksums1"), three = FreshFolder("checksums3");
  SaveSamples(one, 1, {7});
  SaveSamples(three, 3, {7});
  const auto lines = InspectCheckpoint(one + "/step-00000007");
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(*lines, InspectCheckpoint(three + "/step-00000007").value());

  // The checksum is XXH3-64 of the global tensor's bytes in row-major order.
  Arena arena("host", kCpu);
  for (const CheckpointTensor& t : SampleContent(7, 0, 1, arena).tensors) {
    const std::string line =
        absl::StrFormat("%s %s %s %s\n", t.name, NameOf(t.local.dtype()), t.global_shape.ToString(),
                        ChecksumText(Checksum(std::span(t.local.raw(), t.local.bytes()))));
    EXPECT_NE(lines->find(line), std::string::npos) << line << "in\n" << *lines;
  }
  EXPECT_EQ(lines->substr(0, lines->find(' ')), "adamw.m/experts");
}

TEST(Checkpoint, TheSameStateGivesTheSameBytes) {
  const std::string a = FreshFolder("bytes_a"), b = FreshFolder("bytes_b");
  SaveSamples(a, 2, {5});
  SaveSamples(b, 2, {5});
  for (const char* file : {"manifest.json", "rank-000.safetensors", "rank-001.safetensors"}) {
    EXPECT_EQ(ReadFile(a + "/step-00000005/" + file).value(),
              ReadFile(b + "/step-00000005/" + file).value());
  }
}

TEST(Checkpoint, KeepsTheLastAndNamesTheNewest) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 2, {1, 2, 3, 4}, 0, 2);
  EXPECT_EQ(StepsIn(directory), (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(ReadFile(directory + "/LATEST").value(), "step-00000004\n");
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(directory)) ++entries;
  EXPECT_EQ(entries, 3u) << "nothing else is left";
}

TEST(Checkpoint, FlippedBitsAreFoundWhereverTheyAre) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 2, {1});
  const std::string path = directory + "/step-00000001";
  ASSERT_TRUE(OpenAndVerify(path).ok());
  std::mt19937 random(1);
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string file = entry.path().string();
    const std::string good = ReadFile(file).value();
    for (size_t byte = 0; byte < good.size(); byte += 1 + random() % 16) {
      FlipBit(file, byte, static_cast<int>(random() % 8));
      const absl::Status status = OpenAndVerify(path);
      ASSERT_FALSE(status.ok()) << file << " byte " << byte;
      EXPECT_TRUE(Says(status, entry.path().filename().string()) || Says(status, "manifest.json") ||
                  Says(status, "tensor '"))
          << status;
      Overwrite(file, good);
    }
  }
}

TEST(Checkpoint, DamagedTensorIsNamed) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 1, {1});
  const std::string shard = directory + "/step-00000001/rank-000.safetensors";
  const auto file = SafetensorsFile::Open(shard).value();
  const std::string content = ReadFile(shard).value();
  const auto buffer = file.Find("bias");  // the first by size of its elements, then by name
  size_t buffer_bytes = 0;
  for (const auto& [name, entry] : file.entries()) buffer_bytes += entry.bytes.size();
  for (const auto& [name, entry] : file.entries()) {
    if (entry.bytes.empty()) continue;
    const auto at = static_cast<size_t>(entry.bytes.data() - buffer->bytes.data()) +
                    content.size() - buffer_bytes;
    FlipBit(shard, at + entry.bytes.size() / 2, 3);
    const absl::Status status = OpenAndVerify(directory + "/step-00000001");
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_TRUE(Says(status, "rank-000.safetensors: tensor '" + name + "'")) << status;
    Overwrite(shard, content);
  }
}

TEST(Checkpoint, EveryTruncationIsFound) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 2, {1});
  const std::string path = directory + "/step-00000001";
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string file = entry.path().string();
    const std::string good = ReadFile(file).value();
    for (size_t size = 0; size < good.size(); size += 1 + good.size() / 97) {
      Overwrite(file, good.substr(0, size));
      ASSERT_FALSE(OpenAndVerify(path).ok()) << file << " cut at " << size;
    }
    fs::remove(file);
    EXPECT_TRUE(Says(OpenAndVerify(path), entry.path().filename().string()));
    Overwrite(file, good);
  }
  EXPECT_TRUE(OpenAndVerify(path).ok());
}

TEST(OpenNewest, FallsBackToTheOlderOneWithAWarning) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 2, {1, 2});
  const std::string shard = directory + "/step-00000002/rank-001.safetensors";
  FlipBit(shard, fs::file_size(shard) - 1, 0);
  ThreadRanks(3).Run([&](const RankAgreement& ranks) {
    const auto newest = OpenNewest(directory, ranks);
    ASSERT_TRUE(newest.ok() && newest->has_value()) << newest.status();
    EXPECT_EQ((*newest)->reader.step(), 1);
    EXPECT_EQ((*newest)->warnings.size(), 1u);
  });
  const auto alone = OpenNewest(directory);
  EXPECT_NE(alone.value()->warnings[0].find("rank-001.safetensors: tensor '"), std::string::npos);

  const std::string older = directory + "/step-00000001/manifest.json";
  FlipBit(older, 10, 0);
  const absl::Status none = OpenNewest(directory).status();
  EXPECT_TRUE(absl::IsDataLoss(none));
  EXPECT_TRUE(Says(none, "step-00000001/manifest.json") && Says(none, "tensor '")) << none;
}

TEST(OpenNewest, NothingThereIsNotAnError) {
  EXPECT_FALSE(OpenNewest(TestFolder()).value().has_value());
  EXPECT_FALSE(OpenNewest(TestFolder() + "/absent").value().has_value());
}

TEST(CheckpointWriter, SetsAsideWhatIsNewerThanTheResumedStep) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 1, {10, 20, 30});
  fs::create_directories(directory + "/.step-00000040.tmp.1");
  SaveSamples(directory, 2, {15, 20}, /*resumed_step=*/10);
  EXPECT_EQ(StepsIn(directory), (std::vector<int64_t>{20, 15, 10}));
  EXPECT_TRUE(OpenAndVerify(directory + "/step-00000020.set-aside").ok());
  EXPECT_TRUE(OpenAndVerify(directory + "/step-00000030.set-aside").ok());
  EXPECT_FALSE(fs::exists(directory + "/.step-00000040.tmp.1"));
  EXPECT_EQ(OpenNewest(directory).value()->reader.step(), 20);
}

TEST(CheckpointWriter, DoesNotSaveTheSameStepTwice) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 1, {10});
  Arena arena("host", kCpu);
  auto writer = CheckpointWriter::Create({directory, 10, 2, {}}, &arena).value();
  writer->Save(SampleContent(10, 0, 1, arena));
  EXPECT_FALSE(writer->busy());
  EXPECT_FALSE(writer->Poll().has_value());
}

TEST(CheckpointWriter, CopiesBeforeItReturns) {
  const std::string directory = TestFolder();
  Arena arena("host", kCpu);
  auto writer = CheckpointWriter::Create({directory, 0, 2, {}}, &arena).value();
  const CheckpointContent content = SampleContent(4, 0, 1, arena);
  writer->Save(content);
  for (const CheckpointTensor& t : content.tensors) {
    VisitSample(t, 0, [](std::byte& here, std::byte) { here = std::byte{0}; });
  }
  ASSERT_TRUE(writer->Wait().status.ok());
  const auto reader = CheckpointReader::Open(directory + "/step-00000004").value();
  const auto tensors = EmptySamples(0, 1, arena);
  for (const CheckpointTensor& t : tensors) ASSERT_TRUE(reader.Read(t).ok());
  EXPECT_TRUE(IsSample(tensors, 4));
}

TEST(CheckpointWriter, AFailureOnOneRankEndsTheAttemptOnAll) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 3, {1});
  ThreadRanks(3).Run([&](const RankAgreement& ranks) {
    Arena arena("host", kCpu);
    auto writer = CheckpointWriter::Create({directory, 1, 1, ranks}, &arena).value();
    // The second rank finds a folder where its shard should be.
    if (ranks.rank == 1) {
      fs::create_directories(directory + "/.step-00000002.tmp.1/rank-001.safetensors");
    }
    ranks.max(0);
    writer->Save(SampleContent(2, ranks.rank, 3, arena));
    const absl::Status status = writer->Wait().status;
    EXPECT_TRUE(Says(status, ranks.rank == 1 ? "rank-001.safetensors" : "rank 1")) << status;
    EXPECT_EQ(StepsIn(directory), std::vector<int64_t>{1});
    ranks.max(0);
    writer->Save(SampleContent(2, ranks.rank, 3, arena));
    EXPECT_TRUE(writer->Wait().status.ok()) << "the next attempt succeeds";
  });
  EXPECT_EQ(StepsIn(directory), std::vector<int64_t>{2});
}

TEST(CheckpointReader, NamesWhatDoesNotFit) {
  const std::string directory = TestFolder();
  SaveSamples(directory, 1, {1});
  const auto reader = CheckpointReader::Open(directory + "/step-00000001").value();
  Arena arena("host", kCpu);
  const auto tensor = [&](const char* name, DType dtype, const Shape& shape) {
    return ReplicatedTensor(name, Tensor(dtype, shape, arena.Allocate(1024, "test")), 0);
  };
  EXPECT_TRUE(absl::IsNotFound(reader.Read(tensor("absent", DType::kF64, {8}))));
  EXPECT_TRUE(Says(reader.Read(tensor("bias", DType::kF64, {9})), "'bias': shape [8]"));
  EXPECT_TRUE(Says(reader.Read(tensor("bias", DType::kF32, {8})), "'bias': dtype F64"));
  EXPECT_TRUE(reader.Read(tensor("bias", DType::kF64, {8})).ok());
  EXPECT_TRUE(absl::IsNotFound(CheckpointReader::Open(directory + "/step-00000002").status()));
}

}  // namespace
}  // namespace moebius
