#include "train/planner/search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "configs/validate.h"
#include "core/base/check.h"
#include "tests/testing/tiny_session.h"
#include "train/pipeline_layout.h"

namespace moebius {
namespace {

constexpr int64_t kVocabulary = 257;

CostModel Cost(int64_t memory_bytes, int ranks_per_node = 2, double host_bandwidth = 0) {
  ClusterConfig cluster;
  cluster.set_ranks(4);
  cluster.set_ranks_per_node(ranks_per_node);
  DeviceConfig* device = cluster.mutable_device();
  device->set_memory_bytes(memory_bytes);
  device->set_fp64_flops(1e9);
  device->set_memory_bandwidth(1e9);
  device->set_product_efficiency(1);
  device->set_attention_efficiency(1);
  device->set_bandwidth_efficiency(1);
  device->set_host_bandwidth(host_bandwidth);
  for (LinkConfig* link : {cluster.mutable_within_node(), cluster.mutable_between_nodes()}) {
    link->set_bandwidth(1e9);
    link->set_efficiency(1);
    link->set_latency_seconds(1e-6);
  }
  const absl::StatusOr<CostModel> model = CostModel::Create(cluster, PrecisionConfig::FP64);
  CHECK(model.ok()) << model.status();
  return *model;
}

RunConfig Config() { return TinyConfig({"train.global_batch_size=16", "model.num_layers=4"}); }

absl::StatusOr<SearchResult> Search(int64_t memory_bytes, int num_threads = 1) {
  return SearchLayouts(Config(), kVocabulary, 4, Cost(memory_bytes),
                       {.keep = 6, .refine = 4, .num_threads = num_threads});
}

TEST(SearchLayouts, ReturnsLegalLayoutsFastestFirst) {
  const absl::StatusOr<SearchResult> result = Search(0);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->best.size(), 6);
  EXPECT_EQ(result->num_fitting, result->num_legal);
  EXPECT_GE(result->num_planned, result->num_legal);
  double last = 0;
  for (const Candidate& candidate : result->best) {
    EXPECT_TRUE(FindErrors(candidate.config).empty());
    EXPECT_TRUE(ValidateLayout(candidate.config, 4).ok());
    EXPECT_LE(candidate.config.parallel().tensor_size(), 2) << "spans nodes";
    EXPECT_GE(candidate.plan.seconds, last);
    last = candidate.plan.seconds;
  }
}

// Of groups of two on nodes of three, some lie on two nodes.
TEST(SearchLayouts, LeavesOutTensorGroupsThatSpanNodes) {
  RunConfig config = Config();
  config.mutable_train()->set_global_batch_size(12);
  const auto tensor_sizes = [&](int ranks_per_node) {
    const auto result =
        SearchLayouts(config, kVocabulary, 6, Cost(0, ranks_per_node), {.keep = 1000, .refine = 0});
    std::set<int> sizes;
    for (const Candidate& candidate : result->best) {
      sizes.insert(candidate.config.parallel().tensor_size());
      sizes.insert(candidate.config.parallel().expert_tensor_size());
    }
    return sizes;
  };
  EXPECT_EQ(tensor_sizes(3), std::set<int>{1});
  EXPECT_TRUE(tensor_sizes(2).contains(2));
}

TEST(SearchLayouts, NoLayoutThatItKnowsIsFasterThanItsFirst) {
  const absl::StatusOr<SearchResult> result = Search(0);
  ASSERT_TRUE(result.ok()) << result.status();
  RunConfig plain = Config();
  plain.mutable_parallel()->set_zero_stage(1);
  const absl::StatusOr<StepPlan> plan = PlanStep(plain, kVocabulary, 4, Cost(0));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(result->best.front().plan.seconds, plan->seconds * (1 + 1e-9));
}

TEST(SearchLayouts, LeavesOutWhatDoesNotFit) {
  const absl::StatusOr<SearchResult> all = Search(0);
  ASSERT_TRUE(all.ok()) << all.status();
  const int64_t limit = all->best.front().plan.peak_bytes() * 3 / 4;
  const absl::StatusOr<SearchResult> result = Search(limit);
  ASSERT_TRUE(result.ok()) << result.status();
  for (const Candidate& candidate : result->best) {
    EXPECT_LE(candidate.plan.peak_bytes(), limit);
  }
  EXPECT_GE(result->best.front().plan.seconds, all->best.front().plan.seconds);
}

TEST(SearchLayouts, FitsWhereTheHostHasTheMoments) {
  RunConfig config = TinyConfig({"parallel.bucket_bytes=20000"});
  const auto search = [&](int64_t memory_bytes) {
    return SearchLayouts(config, kVocabulary, 1, Cost(memory_bytes, 1, 1e9), {.keep = 1});
  };
  const auto roomy = search(0);
  ASSERT_TRUE(roomy.ok()) << roomy.status();
  const RankMemory& memory = roomy->best.front().plan.stages[0].memory;
  const int64_t limit = memory.parameters + memory.gradients + memory.states / 2;
  EXPECT_FALSE(search(limit).ok());
  config.mutable_optimizer()->set_moments_tier(OptimizerConfig::HOST);
  const auto result = search(limit);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LE(result->best.front().plan.peak_bytes(), limit);
  EXPECT_EQ(result->best.front().plan.host_bytes(), memory.states);
}

TEST(SearchLayouts, SaysHowMuchIsNeededWhereNothingFits) {
  const absl::Status status = Search(1000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("fits the 1000 bytes of a device on 4 ranks"), std::string::npos)
      << status;
}

RunConfig With(RunConfig config, const std::string& balance) {
  const RunConfig other = TinyConfig({"model.moe.balance=" + balance});
  *config.mutable_model()->mutable_moe()->mutable_balance() = other.model().moe().balance();
  config.mutable_train()->set_micro_batch_size(2);
  return config;
}

// 16 sequences, 2 a micro-batch, 4 ranks.
TEST(SearchLayouts, KeepsTheMicroBatchSizeForLossesThatDependOnIt) {
  const RunConfig config = With(Config(), "{loss { scope: SEQUENCE } loss { scope: MICRO_BATCH }}");
  const auto result = SearchLayouts(config, kVocabulary, 4, Cost(0), {.keep = 100});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kept.micro_batch_size, 2);
  EXPECT_EQ(result->kept.num_micro_batches, 0);
  for (const Candidate& candidate : result->best) {
    EXPECT_EQ(candidate.config.train().micro_batch_size(), 2);
  }
}

TEST(SearchLayouts, KeepsTheNumberOfMicroBatchesForRunningCounts) {
  RunConfig config = With(Config(), "{loss { } global_counts: RUNNING}");
  const auto result = SearchLayouts(config, kVocabulary, 4, Cost(0), {.keep = 100});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kept.micro_batch_size, 0);
  EXPECT_EQ(result->kept.num_micro_batches, 2);
  std::set<int64_t> sizes;
  for (const Candidate& candidate : result->best) {
    EXPECT_EQ(PipelineOf(candidate.config, 4).num_micro_batches, 2);
    sizes.insert(candidate.config.train().micro_batch_size());
  }
  EXPECT_EQ(sizes, (std::set<int64_t>{2, 4, 8}));  // over 4 ranks, 2 and 1
  config.mutable_parallel()->set_tensor_size(3);
  const absl::Status status = SearchLayouts(config, kVocabulary, 4, Cost(0)).status();
  EXPECT_NE(status.message().find("give a layout that has one on 4 ranks: parallel: 4 ranks"),
            std::string::npos)
      << status;
}

TEST(SearchLayouts, ChoosesTheMicroBatchWhereNothingDependsOnIt) {
  const RunConfig config = With(Config(), "{loss { } loss { scope: SEQUENCE }}");
  const auto result = SearchLayouts(config, kVocabulary, 4, Cost(0));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kept.micro_batch_size + result->kept.num_micro_batches, 0);
  EXPECT_TRUE(std::ranges::any_of(result->best, [](const Candidate& candidate) {
    return candidate.config.train().micro_batch_size() != 2;
  }));
}

// A vocabulary of one token cannot be cut.
TEST(SearchLayouts, TellsWhatCannotBePlanned) {
  const auto result = SearchLayouts(Config(), 1, 4, Cost(0));
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_FALSE(result->failures.empty());
  const SearchFailure& failure = result->failures[0];
  EXPECT_NE(failure.reason.find("a vocabulary of 1 tokens"), std::string::npos) << failure.reason;
  EXPECT_GT(failure.count, 1);
  EXPECT_NE(failure.example.find("--set parallel.tensor_size=2"), std::string::npos);
}

// One sequence, too short to be cut, in one layer: two ranks can but share tensors.
TEST(SearchLayouts, TellsWhyNoneCanBePlanned) {
  const RunConfig config =
      TinyConfig({"train.global_batch_size=1", "train.sequence_length=2", "model.num_layers=1"});
  const absl::Status status = SearchLayouts(config, 1, 2, Cost(0)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : {"can be planned on 2 ranks; ", " layouts could not be planned: ",
                           "a vocabulary of 1 tokens", "(--set parallel.tensor_size=2"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
}

TEST(SearchLayouts, TellsWhyNoneIsLegal) {
  const absl::Status status = SearchLayouts(Config(), kVocabulary, 7, Cost(0)).status();
  EXPECT_NE(status.message().find("no layout is legal on 7 ranks, plain data parallelism for one: "
                                  "train.global_batch_size: 16 is no multiple of"),
            std::string::npos)
      << status;
}

TEST(SearchLayouts, ThreadsChangeNothing) {
  const absl::StatusOr<SearchResult> one = Search(0, 1), three = Search(0, 3);
  ASSERT_TRUE(one.ok() && three.ok());
  ASSERT_EQ(one->best.size(), three->best.size());
  for (size_t i = 0; i < one->best.size(); ++i) {
    EXPECT_EQ(one->best[i].config.SerializeAsString(), three->best[i].config.SerializeAsString());
    EXPECT_EQ(one->best[i].plan.seconds, three->best[i].plan.seconds);
  }
  EXPECT_EQ(one->num_planned, three->num_planned);
}

}  // namespace
}  // namespace moebius
