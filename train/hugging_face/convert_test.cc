#include "train/hugging_face/convert.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "configs/run.pb.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/reader.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

const std::string kFixture = "tests/golden/fixtures/qwen3_moe";

class ConvertTest : public testing::Test {
 protected:
  ConvertTest() : folder_(testing::TempDir() + "/convert") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  const std::string folder_;
  const std::string checkpoint_ = folder_ + "/checkpoint";
};

TEST_F(ConvertTest, ThereAndBackKeepsEveryBit) {
  ASSERT_TRUE(ImportCheckpoint(kFixture, checkpoint_).ok());
  const absl::Status status =
      ExportCheckpoint(checkpoint_, folder_ + "/back", HuggingFaceLayout::kQwen3Moe, DType::kF32);
  ASSERT_TRUE(status.ok()) << status.ToString();

  const auto original = SafetensorsFile::Open(kFixture + "/model.safetensors");
  const auto back = SafetensorsFile::Open(folder_ + "/back/model.safetensors");
  ASSERT_EQ(original->entries().size(), back->entries().size());
  for (const auto& [name, entry] : original->entries()) {
    EXPECT_TRUE(std::ranges::equal(entry.bytes, back->entries().at(name).bytes)) << name;
  }
  const auto first = HuggingFaceReader::Open(kFixture);
  const auto second = HuggingFaceReader::Open(folder_ + "/back");
  EXPECT_EQ(first->model().SerializeAsString(), second->model().SerializeAsString());
  EXPECT_EQ(second->config().max_position_embeddings, 64);
}

TEST_F(ConvertTest, ImportsACheckpointOfStepZeroWithItsModelsConfig) {
  ASSERT_TRUE(ImportCheckpoint(kFixture, checkpoint_ + "/").ok());
  const auto checkpoint = CheckpointReader::Open(checkpoint_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  EXPECT_TRUE(checkpoint->Verify().ok());
  EXPECT_EQ(checkpoint->step(), 0);
  EXPECT_EQ(checkpoint->tensors().at("layers.2.moe.experts.gate.weight").shape, Shape({6, 16, 24}));

  RunConfig config;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      *checkpoint->ReadTextFile("config.textproto"), &config));
  EXPECT_EQ(config.model().moe().top_k(), 2);
  EXPECT_EQ(config.train().sequence_length(), 64);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "something was left behind";
}

TEST_F(ConvertTest, RefusesToImportOverSomething) {
  fs::create_directories(checkpoint_);
  EXPECT_EQ(ImportCheckpoint(kFixture, checkpoint_).message(), checkpoint_ + ": exists already");
}

TEST_F(ConvertTest, RefusesToExportWhatTheLayoutCannotExpress) {
  ASSERT_TRUE(ImportCheckpoint(kFixture, checkpoint_).ok());
  const absl::Status status =
      ExportCheckpoint(checkpoint_, folder_ + "/out", HuggingFaceLayout::kMixtral, DType::kF32);
  EXPECT_EQ(status.message(),
            "the layout mixtral cannot express layers without experts (model.moe.layers leaves "
            "some dense)");
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
}

TEST_F(ConvertTest, NamesTheTensorOfADamagedCheckpoint) {
  ASSERT_TRUE(ImportCheckpoint(kFixture, checkpoint_).ok());
  std::fstream shard(checkpoint_ + "/rank-000.safetensors",
                     std::ios::in | std::ios::out | std::ios::binary);
  shard.seekp(-1, std::ios::end);
  const char last = static_cast<char>(shard.peek() ^ 1);
  shard.seekp(-1, std::ios::end);
  shard.put(last);
  shard.close();
  const absl::Status status =
      ExportCheckpoint(checkpoint_, folder_ + "/out", HuggingFaceLayout::kQwen3Moe, DType::kF32);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("layers.2.moe.router.weight"), std::string::npos) << status;
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
}

}  // namespace
}  // namespace moebius
