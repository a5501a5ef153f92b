#include "configs/load.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace moebius {
namespace {

using ::testing::ElementsAre;

std::string PrintMessage(const google::protobuf::Message& message) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(message, &text);
  return text;
}

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

TEST(Override, SetsEveryType) {
  const absl::StatusOr<RunConfig> config = Small({
      "train.num_steps=20",
      "run.seed=18446744073709551615",
      "run.threads_per_rank=2",
      "model.tie_embeddings=true",
      "optimizer.peak_lr=1e-2",
      "precision.compute=FP64",
      "parallel.expert_size = 2",
  });
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->train().num_steps(), 20);
  EXPECT_EQ(config->run().seed(), 18446744073709551615u);
  EXPECT_EQ(config->run().threads_per_rank(), 2);
  EXPECT_TRUE(config->model().tie_embeddings());
  EXPECT_EQ(config->optimizer().peak_lr(), 0.01);
  EXPECT_EQ(config->precision().compute(), PrecisionConfig::FP64);
  EXPECT_EQ(config->parallel().expert_size(), 2);
}

TEST(Override, TakesStringsWithOrWithoutQuotes) {
  for (const char* override : {"run.dir=runs/my run", "run.dir=\"runs/my run\"",
                               "run.dir='runs/my run'", "run.dir=\"runs/my\\x20run\""}) {
    const absl::StatusOr<RunConfig> config = Small({override});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->run().dir(), "runs/my run");
    EXPECT_EQ(config->data().dir(), "runs/my run/data");
  }
}

TEST(Override, SetsListsAsAWhole) {
  const absl::StatusOr<RunConfig> layers =
      Small({"model.num_layers=4", "model.ffn_hidden_size=8", "model.moe.layers=[1, 3]"});
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_THAT(layers->model().moe().layers(), ElementsAre(1, 3));
  for (const char* override :
       {"data.domains[0].files=[b.txt, c*.gz]", "data.domains[0].files=[\"b.txt\", \"c*.gz\"]"}) {
    const absl::StatusOr<RunConfig> files = Small({override});
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_THAT(files->data().domains(0).files(), ElementsAre("b.txt", "c*.gz"));
  }
  const absl::StatusOr<RunConfig> one = Small({"data.domains[0].files=one.txt"});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_THAT(one->data().domains(0).files(), ElementsAre("one.txt"));
}

TEST(Override, SetsMessagesAndElements) {
  const absl::StatusOr<RunConfig> config = Small({
      "model.moe.router.scale=3",
      "model.moe.router={score: SIGMOID}",
      "model.moe.balance.loss=[{scope: SEQUENCE weight: 0.5}, {}]",
      "model.moe.balance.loss[1].weight=2",
      "data.domains[0].weight=2.5",
  });
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().moe().router().score(), RouterConfig::SIGMOID);
  EXPECT_EQ(config->model().moe().router().scale(), 1);  // back at its default
  EXPECT_EQ(config->model().moe().num_experts(), 4);
  const BalanceConfig& balance = config->model().moe().balance();
  EXPECT_EQ(balance.loss(0).scope(), BalanceLossConfig::SEQUENCE);
  EXPECT_EQ(balance.loss(1).scope(), BalanceLossConfig::GLOBAL_BATCH);
  EXPECT_EQ(balance.loss(1).weight(), 2);
  EXPECT_EQ(config->data().domains(0).weight(), 2.5);
  EXPECT_EQ(config->data().domains(0).name(), "a");
}

TEST(Override, TheLastOneWins) {
  const absl::StatusOr<RunConfig> config = Small({"train.num_steps=0", "train.num_steps=7"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->train().num_steps(), 7);
}

TEST(Override, MayFillAnEmptyConfig) {
  const absl::StatusOr<RunConfig> config =
      ParseRunConfig("empty", "",
                     {"run.dir=r", "train={num_steps: 1 global_batch_size: 1 sequence_length: 1}",
                      "model={num_layers: 1 hidden_size: 8 num_heads: 1 ffn_hidden_size: 8}",
                      "data.domains={name: 'a' files: 'a.txt'}"});
  EXPECT_TRUE(config.ok()) << config.status();
}

// Everything that may be set can be set by --set, and comes back from a print.
TEST(Override, ReachesEveryFieldOfAPrintedConfig) {
  const absl::StatusOr<RunConfig> config = Small();
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::StatusOr<RunConfig> again =
      Small({absl::StrCat("model={", PrintMessage(config->model()), "}"),
             absl::StrCat("data={", PrintMessage(config->data()), "}"),
             absl::StrCat("optimizer={", PrintMessage(config->optimizer()), "}")});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintConfig(*again), PrintConfig(*config));
}

TEST(Load, AcceptsWhatEditorsLeave) {
  const std::string marked = absl::StrCat("\xEF\xBB\xBF# comment \xC3\xA4\r\n", kSmall);
  EXPECT_TRUE(ParseRunConfig("marked", marked).ok()) << ParseRunConfig("marked", marked).status();
  EXPECT_TRUE(ParseRunConfig("crlf", absl::StrReplaceAll(kSmall, {{"\n", "\r\n"}})).ok());
}

}  // namespace
}  // namespace moebius
