#include "train/training_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/tensor/context.h"
#include "train/checkpoint/commit.h"

namespace moebius {
namespace {

class RestoreModelTest : public testing::Test {
 protected:
  RestoreModelTest() : store_(context_, {}, DType::kF32) {
    weight_ = store_.AddParameter({.name = "weight", .shape = {2, 3}, .standard_deviation = 1});
    counts_ = store_.AddBuffer("counts", DType::kF64, {4});
    store_.Initialize(/*seed=*/1);
    std::ranges::fill(counts_->value.span<double>(), 7.0);
  }

  // A checkpoint that holds these tensors of the store.
  CheckpointReader Saved(int64_t step, const std::vector<std::string>& names) {
    CheckpointContent content;
    content.step = step;
    for (const CheckpointTensor& tensor : ModelTensors(store_)) {
      if (std::ranges::count(names, tensor.name) > 0) content.tensors.push_back(tensor);
    }
    const std::string folder = testing::TempDir() + "/training_state";
    std::filesystem::remove_all(folder);
    CHECK(WriteShare(content, 0, folder + "/.writing").ok());
    CHECK(CommitCheckpoint(folder + "/.writing", folder, step, /*world_size=*/1,
                           /*keep_last=*/1)
              .ok());
    return *CheckpointReader::Open(folder + "/" + CheckpointName(step));
  }

  Context context_;
  ParameterStore store_;
  Parameter* weight_;
  Buffer* counts_;
};

TEST_F(RestoreModelTest, FillsParametersAndBuffersAndOutdatesImages) {
  const std::vector<float> saved(weight_->value.span<float>().begin(),
                                 weight_->value.span<float>().end());
  const CheckpointReader checkpoint = Saved(5, {"weight", "counts"});
  std::ranges::fill(weight_->value.span<float>(), 0.0f);
  std::ranges::fill(counts_->value.span<double>(), 0.0);
  const int64_t version = weight_->version;
  ASSERT_TRUE(RestoreModel(checkpoint, store_).ok());
  EXPECT_TRUE(std::ranges::equal(weight_->value.span<float>(), saved));
  EXPECT_EQ(counts_->value.data<double>()[3], 7);
  EXPECT_GT(weight_->version, version);
}

TEST_F(RestoreModelTest, LeavesWhatAnImportedModelLacksAsItStarted) {
  const CheckpointReader checkpoint = Saved(0, {"weight"});
  ASSERT_TRUE(RestoreModel(checkpoint, store_).ok());
  EXPECT_EQ(counts_->value.data<double>()[3], 7);
}

TEST_F(RestoreModelTest, MissesEverythingElse) {
  EXPECT_EQ(RestoreModel(Saved(5, {"weight"}), store_).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RestoreModel(Saved(0, {"counts"}), store_).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace moebius
