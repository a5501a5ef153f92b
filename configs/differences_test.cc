#include "configs/differences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/load.h"

namespace moebius {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RunConfig Config(const std::vector<std::string>& overrides) {
  const absl::StatusOr<RunConfig> config = ParseRunConfig("config", R"(
    run { dir: "r" }
    train { num_steps: 10 global_batch_size: 8 sequence_length: 4 }
    model { num_layers: 3 hidden_size: 8 num_heads: 2 ffn_hidden_size: 8
            moe { num_experts: 8 expert_hidden_size: 8 balance { loss { } } } }
    data { domains { name: "a" files: "a.txt" } domains { name: "b" files: "b.txt" } })",
                                                          overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::vector<std::string> Differences(const std::vector<std::string>& overrides) {
  return ResultDifferences(Config({}), Config(overrides));
}

TEST(ResultDifferences, CostLayoutPlaceAndLengthMayChange) {
  EXPECT_THAT(
      Differences({"run.dir=elsewhere", "run.threads_per_rank=3", "run.deadline_seconds=5",
                   "train.num_steps=20", "train.micro_batch_size=4", "train.log_interval_steps=7",
                   "train.eval_interval_steps=5", "parallel.expert_size=4",
                   "optimizer.moments_tier=HOST", "checkpoint.interval_steps=3",
                   "checkpoint.keep_last=1", "data.dir=moved"}),
      IsEmpty());
}

TEST(ResultDifferences, NamesEveryFieldThatChangesResults) {
  EXPECT_THAT(
      Differences({"optimizer.peak_lr=0.1", "run.seed=2", "train.global_batch_size=4",
                   "precision.compute=BF16", "model.num_layers=4", "model.moe.top_k=1",
                   "model.moe.router.score=SIGMOID", "data.domains[1].weight=2",
                   "model.moe.balance.loss[0].scope=SEQUENCE", "data.document_attention=ACROSS"}),
      ElementsAre("run.seed", "train.global_batch_size", "precision.compute", "model.num_layers",
                  "model.moe.top_k", "model.moe.router.score", "model.moe.balance.loss[0].scope",
                  "data.domains[1].weight", "data.document_attention", "optimizer.peak_lr"));
}

TEST(ResultDifferences, ListsOfUnequalLengthDifferAsAWhole) {
  EXPECT_THAT(Differences({"model.moe.layers=[0, 1]", "data.domains=[{name: \"a\" files: \"a\"}]"}),
              ElementsAre("model.moe.layers", "data.domains"));
  EXPECT_THAT(
      ResultDifferences(Config({"model.moe.layers=[0, 1]"}), Config({"model.moe.layers=[0, 2]"})),
      ElementsAre("model.moe.layers[1]"));
}

TEST(ResultDifferences, SeeTheLastBitOfADouble) {
  EXPECT_THAT(ResultDifferences(Config({"optimizer.beta2=0.95"}),
                                Config({"optimizer.beta2=0.95000000000000007"})),
              ElementsAre("optimizer.beta2"));
}

}  // namespace
}  // namespace moebius
