// The dry run of a rank's step against the step: bytes, and what is sent.
#include "train/planner/dry_run.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <mutex>

#include "tests/parity/cells.h"
#include "tests/parity/parity_run.h"
#include "tests/testing/tiny_dataset.h"

namespace moebius {
namespace {

// Wide enough that tensors, not the scratch of kernels, make the memory.
const Overrides kTrained = {"precision.compute=FP32",
                            "train.sequence_length=96",
                            "train.global_batch_size=12",
                            "model.num_layers=4",
                            "model.hidden_size=192",
                            "model.moe.expert_hidden_size=192",
                            "model.tie_embeddings=true",
                            "model.moe.layers=[0, 3]",
                            "model.ffn_hidden_size=384",
                            "model.moe.num_shared_experts=1",
                            "model.moe.balance={loss { weight: 0.05 } bias_update_rate: 0.01}"};

class DryRunMemory : public testing::TestWithParam<Layout> {};

// On every rank, of a real step: within 10%. Experts get more rows and fewer than the even ones,
// and kernels have scratch.
TEST_P(DryRunMemory, IsWhatAStepTakes) {
  const Layout& layout = GetParam();
  std::mutex mutex;
  double worst = 0;
  const auto compare = [&](Session& session) {
    const int rank = session.mesh().world().rank();
    const auto dry = DryRun(session.config(), TinyDataset().vocab_size(), rank, layout.ranks);
    ASSERT_TRUE(dry.ok()) << dry.status();
    const Arena none("messages", kMeta);
    const RankMemory real = MemoryOf(session.context(), none);
    const auto predicted = static_cast<double>(dry->peak);
    const double error = predicted / static_cast<double>(real.peak) - 1;
    const std::lock_guard lock(mutex);
    worst = std::abs(error) > std::abs(worst) ? error : worst;
    EXPECT_NEAR(error, 0, 0.1) << "rank " << rank << ": " << dry->peak << " and " << real.peak;
    EXPECT_GT(dry->activations, 0);
    EXPECT_EQ(dry->parameters, real.parameters);
    EXPECT_EQ(dry->weights, real.weights);
    EXPECT_EQ(dry->gradients, real.gradients);
    EXPECT_EQ(dry->states, real.states);
  };
  TrainOnThreads(layout, kTrained, nullptr, {.end = compare, .last_step = 2});
  std::printf("| %s | %+.1f%% |\n", layout.ToString().c_str(), 100 * worst);
}

INSTANTIATE_TEST_SUITE_P(Layouts, DryRunMemory, testing::ValuesIn(DrawLayouts(kTrained, 10, 3)));

// Exchanges of a fixed length: with room for all rows, so that no step is taken again.
const Layout kBounded[] = {
    {.ranks = 2, .expert_size = 2, .micro_batch_size = 3, .more = {"parallel.exchange_capacity=2"}},
    {.ranks = 4,
     .expert_size = 4,
     .micro_batch_size = 3,
     .zero_stage = 3,
     .more = {"parallel.exchange_capacity=4"}},
    {.ranks = 4,
     .expert_size = 2,
     .micro_batch_size = 3,
     .more = {"parallel.expert_tensor_size=2", "parallel.exchange_capacity=2"}}};
INSTANTIATE_TEST_SUITE_P(Bounded, DryRunMemory, testing::ValuesIn(kBounded));

}  // namespace
}  // namespace moebius
