#include "configs/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace moebius {
namespace {

using ::testing::HasSubstr;

// The smallest config: every required field, on known lines.
constexpr char kSmall[] = R"(run { dir: "runs/small" }
train {
  num_steps: 10
  global_batch_size: 4
  sequence_length: 8
}
model {
  num_layers: 1
  hidden_size: 16
  num_heads: 2
  moe { num_experts: 4 expert_hidden_size: 8 }
}
data {
  domains { name: "a" files: "a.txt" }
}
)";

absl::StatusOr<RunConfig> Small(const std::vector<std::string>& overrides = {}) {
  return ParseRunConfig("small", kSmall, overrides);
}

TEST(Load, FillsEveryDefault) {
  const absl::StatusOr<RunConfig> config = Small();
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->run().has_seed());
  EXPECT_EQ(config->precision().compute(), PrecisionConfig::FP32);
  EXPECT_EQ(config->parallel().expert_size(), 1);
  EXPECT_EQ(config->model().num_kv_heads(), 2);
  EXPECT_EQ(config->model().head_dim(), 8);
  EXPECT_EQ(config->model().vocab_size(), 0);
  EXPECT_EQ(config->model().moe().router().score(), RouterConfig::SOFTMAX);
  EXPECT_TRUE(config->model().moe().balance().has_global_counts());
  EXPECT_EQ(config->data().dir(), "runs/small/data");
  EXPECT_TRUE(config->data().domains(0).has_weight());
  EXPECT_EQ(config->data().document_attention(), DataConfig::WITHIN);
  EXPECT_TRUE(config->checkpoint().has_keep_last());
}

TEST(Load, PrintedConfigLoadsBackAsEqual) {
  const absl::StatusOr<RunConfig> config =
      Small({"optimizer.peak_lr=0.1234567890123456", "run.seed=18446744073709551615"});
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string text = PrintConfig(*config);
  const absl::StatusOr<RunConfig> again = ParseRunConfig("printed", text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->SerializeAsString(), config->SerializeAsString());
  EXPECT_EQ(PrintConfig(*again), text);
}

TEST(Load, EveryRecipeIsValid) {
  for (const char* name : {"tiny", "quickstart", "reference_step"}) {
    const auto config = LoadRunConfig(absl::StrCat("configs/recipes/", name, ".textproto"));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->run().dir(), absl::StrCat("runs/", name));
  }
}

}  // namespace
}  // namespace moebius
