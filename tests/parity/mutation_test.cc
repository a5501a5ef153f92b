// The test of the parity test: one mistake in one operation, and the comparison fails.
#include <gtest/gtest.h>

#include <cstdio>
#include <ostream>

#include "tests/parity/mutating_communicator.h"
#include "tests/parity/parity_run.h"

namespace moebius {

void PrintTo(const Mutation& mutation, std::ostream* out) { *out << mutation.name; }

namespace {

using enum Mutation::Kind;
using enum Mutation::Operation;

// Losses of two scopes, counted in a pass of its own: every kind of operation happens.
const Overrides kOverrides = {
    "precision.compute=FP64", "train.sequence_length=16", "train.num_steps=6",
    "model.moe.balance={loss { weight: 0.05 } loss { scope: SEQUENCE weight: 0.01 } "
    "z_loss_weight: 0.01 bias_update_rate: 0.01 global_counts: EXACT}"};
// All-reduces of gradients happen in stage 0 alone; the other operations are those of stage 1.
Layout LayoutFor(const Mutation& mutation) {
  const bool of_sequences = mutation.group.find("tensor") != std::string::npos ||
                            mutation.group.find("context") != std::string::npos;
  Overrides more;
  if (of_sequences) more = {"parallel.tensor_size=2", "parallel.context_size=2"};
  if (mutation.group == "expert") more = {"parallel.dispatcher=ALL_GATHER"};
  return {.ranks = 4,
          .expert_size = 2,
          .micro_batch_size = 2,
          .zero_stage = mutation.operation == kAllReduce ? 0 : 1,
          .more = more};
}

constexpr int64_t kExperts = 8, kLayers = 2, kMany = int64_t{1} << 40;

const Mutation kMutations[] = {
    {"loss_normalizer_dropped", kDropped, "data", 2, 2},
    {"loss_normalizer_counted_twice", kCountedTwice, "data", 2, 2},
    {"loss_dropped", kDropped, "data", 1, 1},
    {"dense_gradients_dropped", kDropped, "data", 1000, kMany},
    {"dense_gradients_divided", kDividedBySize, "data", 1000, kMany},
    {"expert_gradients_dropped", kDropped, "expert_data", 1000, kMany},
    {"expert_gradients_divided", kDividedBySize, "expert_data", 1000, kMany},
    {"gradient_norm_dropped", kDropped, "world", 1, 1},
    {"exact_counts_dropped", kDropped, "data", kExperts, kExperts},
    {"exact_counts_counted_twice", kCountedTwice, "data", kExperts, kExperts},
    {"routing_summary_dropped", kDropped, "world", kLayers*(kExperts + 2), kLayers*(kExperts + 2)},
    {"routing_summary_counted_twice", kCountedTwice, "world", kLayers*(kExperts + 2),
     kLayers*(kExperts + 2)},
    {"routing_summary_divided", kDividedBySize, "world", kLayers*(kExperts + 2),
     kLayers*(kExperts + 2)},
    {"dense_shares_not_reduced", kDropped, "data", 1000, kMany, kReduceScatter},
    {"expert_shares_not_reduced", kDropped, "expert_data", 1000, kMany, kReduceScatter},
    {"dense_updates_not_gathered", kDropped, "data", 1000, kMany, kAllGather},
    {"expert_updates_not_gathered", kDropped, "expert_data", 1000, kMany, kAllGather},
    {"tensor_shards_not_gathered", kDropped, "tensor", 100, kMany, kAllGather},
    {"tensor_sums_not_scattered", kDropped, "tensor", 100, kMany, kReduceScatter},
    {"vocabulary_statistics_not_gathered", kDropped, "tensor", 1, 99, kAllGather},
    {"context_keys_not_gathered", kDropped, "context", 1, 999, kAllGather},
    {"context_key_gradients_not_summed", kDropped, "context", 1, 999, kReduceScatter},
    {"expert_sums_lose_a_part", kPartLost, "expert", 1000, kMany, kReduceScatter},
    {"pair_weight_gradients_lose_a_part", kPartLost, "expert", 1, 999, kReduceScatter},
    {"sequence_counts_dropped", kDropped, "context x tensor", 2 * kExperts, 2 * kExperts},
    {"sequence_counts_counted_twice", kCountedTwice, "context x tensor", 2 * kExperts,
     2 * kExperts},
};

Difference CompareMutated(const Mutation& mutation, int* applied) {
  static const ParityCurve one = TrainOnThreads({}, kOverrides);
  std::atomic<int> count = 0;
  const ParityCurve mutated =
      TrainOnThreads(LayoutFor(mutation), kOverrides,
                     [&](Communicator& world) { return Mutate(world, mutation, &count); });
  *applied = count;
  return Compare(one, mutated);
}

TEST(Mutation, NoneAgrees) {
  int applied = 0;
  EXPECT_TRUE(CompareMutated({}, &applied).Within(kDoubleTolerance));
  EXPECT_EQ(applied, 0);
}

class AnyMutation : public testing::TestWithParam<Mutation> {};

TEST_P(AnyMutation, IsNoticed) {
  int applied = 0;
  const Difference difference = CompareMutated(GetParam(), &applied);
  std::printf("| %s | %s |\n", GetParam().name.c_str(), difference.ToString().c_str());
  EXPECT_GT(applied, 0) << "the mutation meets no operation";
  EXPECT_FALSE(difference.Within(kDoubleTolerance));
}

INSTANTIATE_TEST_SUITE_P(All, AnyMutation, testing::ValuesIn(kMutations),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace moebius
