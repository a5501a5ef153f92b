#include "configs/validate.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "configs/fields.h"
#include "configs/load.h"
#include "configs/ranges.h"

namespace moebius {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;

RunConfig Config(const std::vector<std::string>& overrides) {
  const absl::StatusOr<RunConfig> config = ParseRunConfig("config", R"(
    run { dir: "r" }
    train { num_steps: 1 global_batch_size: 24 micro_batch_size: 2 sequence_length: 4 }
    model { num_layers: 3 hidden_size: 8 num_heads: 2 ffn_hidden_size: 8
            moe { num_experts: 8 expert_hidden_size: 8 } }
    data { domains { name: "a" files: "a.txt" } })",
                                                          overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::string LayoutError(const RunConfig& config, int world_size) {
  return std::string(ValidateLayout(config, world_size).message());
}

TEST(ValidateLayout, AcceptsEverySplitThatComesOutEven) {
  for (const int world_size : {1, 2, 3, 4, 6, 12}) {
    EXPECT_EQ(LayoutError(Config({}), world_size), "");
  }
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=4"}), 4), "");
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=2"}), 6), "");
  EXPECT_EQ(LayoutError(Config({"parallel.tensor_size=2", "parallel.pipeline_size=3"}), 6), "");
  // The experts are spread over ranks that differ in tensor and context too.
  EXPECT_EQ(LayoutError(Config({"parallel.tensor_size=2", "parallel.context_size=1",
                                "parallel.expert_size=4", "parallel.expert_tensor_size=2"}),
                        8),
            "");
}

TEST(ValidateLayout, NamesTheNearestSizesThatWork) {
  EXPECT_EQ(
      LayoutError(Config({}), 5),
      "train.global_batch_size: 24 is no multiple of train.micro_batch_size 2 x data-parallel "
      "size 5 = 10, use 20 or 30");
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=4"}), 6),
            "parallel.expert_size: 4 does not divide the 6 ranks of a pipeline stage, use 2 or "
            "start 4 or 8 ranks");
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=8"}), 1),
            "parallel.expert_size: 8 does not divide the 1 ranks of a pipeline stage, use 1 or "
            "start 8 ranks");
}

TEST(ValidateLayout, RanksAreMultiplesOfTheSizes) {
  EXPECT_EQ(LayoutError(Config({"parallel.tensor_size=2"}), 3),
            "parallel: 3 ranks are no multiple of tensor_size x pipeline_size x context_size = 2, "
            "start 2 or 4");
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=4", "parallel.expert_tensor_size=2"}), 4),
            "parallel.expert_size: 4 x expert_tensor_size 2 does not divide the 4 ranks of a "
            "pipeline stage, use 2 or start 8 ranks");
  EXPECT_EQ(LayoutError(Config({"parallel.expert_size=2", "parallel.pipeline_size=3"}), 3),
            "parallel.expert_size: 2 does not divide the 1 ranks of a pipeline stage, use 1 or "
            "start 6 ranks");
}

TEST(ValidateLayout, TellsEveryBrokenRule) {
  const std::string error = LayoutError(Config({"parallel.expert_size=2"}), 5);
  EXPECT_EQ(
      error,
      "parallel.expert_size: 2 does not divide the 5 ranks of a pipeline stage, use 1 or "
      "start 4 or 6 ranks\n"
      "train.global_batch_size: 24 is no multiple of train.micro_batch_size 2 x data-parallel "
      "size 5 = 10, use 20 or 30");
}

TEST(IsMoeLayer, FollowsTheListAndAnEmptyListMeansAll) {
  const ModelConfig all = Config({}).model();
  EXPECT_TRUE(IsMoeLayer(all, 0) && IsMoeLayer(all, 1) && IsMoeLayer(all, 2));
  const ModelConfig some = Config({"model.moe.layers=[2, 0]"}).model();
  EXPECT_TRUE(IsMoeLayer(some, 0));
  EXPECT_FALSE(IsMoeLayer(some, 1));
  EXPECT_TRUE(IsMoeLayer(some, 2));
  EXPECT_FALSE(IsMoeLayer(Config({"model.moe.num_experts=0"}).model(), 0));
}

bool IsRangedNumber(const FieldDescriptor* field) {
  const auto type = field->cpp_type();
  return !field->is_repeated() &&
         (type == FieldDescriptor::CPPTYPE_INT32 || type == FieldDescriptor::CPPTYPE_INT64 ||
          type == FieldDescriptor::CPPTYPE_DOUBLE);
}

double DefaultOf(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return field->default_value_int32();
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(field->default_value_int64());
    default:
      return field->default_value_double();
  }
}

void CheckRanges(const Descriptor* message, const std::string& base) {
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    const std::string path = JoinPath(base, field->name());
    if (field->message_type()) CheckRanges(field->message_type(), path);
    const Range* range = FindRange(path);
    EXPECT_EQ(range != nullptr, IsRangedNumber(field)) << path;
    if (!range || !field->has_default_value()) continue;
    EXPECT_TRUE(range->Contains(DefaultOf(field))) << path;
  }
}

TEST(Ranges, EveryNumberHasOneAndItsDefaultIsIn) { CheckRanges(RunConfig::descriptor(), ""); }

TEST(Ranges, NoneContainsNan) {
  EXPECT_FALSE(FindRange("optimizer.peak_lr")->Contains(std::nan("")));
  EXPECT_FALSE(FindRange("optimizer.peak_lr")->Contains(0));
  EXPECT_TRUE(FindRange("optimizer.peak_lr")->Contains(1e-300));
}

}  // namespace
}  // namespace moebius
