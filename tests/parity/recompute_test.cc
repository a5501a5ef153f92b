// Recomputing blocks, or each of their segments, in backward changes no bit and counts nothing
// twice; counting outside Tape::Once would.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <numeric>

#include "configs/load.h"
#include "core/base/random.h"
#include "kernels/expert_counts.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/tiny_dataset.h"
#include "train/batch_loader.h"
#include "train/session.h"

namespace moebius {
namespace {

constexpr int64_t kSequences = 3, kPositions = 16;

enum class Recomputed { kNothing, kBlocks, kSegments };
enum class Counted { kOnce, kEachRun };

using Numbers = std::vector<double>;

// Of one rank, after one micro-batch.
struct Outcome {
  std::map<std::string, Numbers> gradients;
  std::vector<Numbers> counts, balance_losses, z_losses;  // [layers]
  std::vector<Numbers> own_counts;                        // [layers], by the test's own counter
};

Numbers NumbersOf(const Tensor& x) {
  const auto values = x.span<double>();
  return {values.begin(), values.end()};
}

Sample RandomSample(int64_t index, int64_t vocab_size) {
  const RandomStream stream(index, "sample");
  Sample sample{.tokens = std::vector<int32_t>(kPositions),
                .labels = std::vector<int32_t>(kPositions),
                .document_ids = std::vector<int32_t>(kPositions),
                .positions = std::vector<int32_t>(kPositions),
                .loss_weights = std::vector<float>(kPositions, 1.0f)};
  for (int64_t s = 0; s < kPositions; ++s) {
    sample.tokens[s] = static_cast<int32_t>(stream.Below(2 * s, vocab_size));
    sample.labels[s] = static_cast<int32_t>(stream.Below(2 * s + 1, vocab_size));
  }
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  return sample;
}

MicroBatch BatchOf(Session& session) {
  std::vector<Sample> samples;
  std::vector<int64_t> index;
  for (int64_t i = 0; i < kSequences; ++i) {
    index.push_back(session.mesh().world().rank() * kSequences + i);
    samples.push_back(RandomSample(index.back(), session.model().spec().vocab_size));
  }
  return MakeMicroBatch(
      samples, index,
      {.sequence_length = kPositions, .dtype = DType::kF64, .at = session.mesh().position()},
      session.context());
}

Parameter* Find(Session& session, const std::string& name) {
  for (Parameter* parameter : session.model().store().parameters()) {
    if (parameter->name == name) return parameter;
  }
  return nullptr;
}

// Runs the first segment of a block and counts its plan as well.
BundleFn CountingSegment(const Segment& segment, Counted counted, const Tensor& counts) {
  return [=, run = segment.run](Tape& tape, const Bundle& in) {
    Bundle out = run(tape, in);
    const RoutingPlan& plan = std::any_cast<BlockState>(&out.state)->routing->plan;
    const auto count = [&] {
      kernels::ExpertCounts({.plan = plan,
                             .tokens_per_group = plan.num_tokens(),
                             .counts = counts.Reshape({1, counts.size()}),
                             .accumulate = true},
                            tape.context());
      return 0;
    };
    counted == Counted::kOnce ? tape.Once(count) : count();
    return out;
  };
}

BundleFn InTurn(const std::vector<BundleFn>& segments) {
  return [segments](Tape& tape, const Bundle& in) {
    Bundle bundle = in;
    for (const BundleFn& segment : segments) bundle = segment(tape, bundle);
    return bundle;
  };
}

Outcome RunOnRank(Session& session, Recomputed recomputed, Counted counted) {
  Transformer& model = session.model();
  const MicroBatch batch = BatchOf(session);
  const StepInputs step{.num_tokens = 2.0 * kSequences * kPositions, .seed = 1};
  Outcome outcome;
  std::vector<Tensor> own_counts;
  std::vector<std::vector<BundleFn>> segments;  // [layers]
  std::vector<BundleFn> blocks;                 // [layers]
  for (const auto& block : model.blocks()) {
    own_counts.push_back(
        session.context().Zeros(DType::kF64, {model.spec().moe.num_experts}, "counts"));
    auto& functions = segments.emplace_back();
    for (const Segment& segment : block->segments()) functions.push_back(segment.run);
    functions[0] = CountingSegment(block->segments()[0], counted, own_counts.back());
    blocks.push_back(InTurn(functions));
  }

  Tape tape(session.context(), session.weights());
  Bundle bundle{{{"hidden", ops::Embedding(tape, batch.tokens, Find(session, "embedding.weight"),
                                           DType::kF64)}},
                BlockState{&batch, &step, {}}};
  for (size_t layer = 0; layer < blocks.size(); ++layer) {
    if (recomputed == Recomputed::kNothing) bundle = blocks[layer](tape, bundle);
    if (recomputed == Recomputed::kBlocks) bundle = tape.Recompute(bundle, &blocks[layer]);
    if (recomputed != Recomputed::kSegments) continue;
    for (const BundleFn& segment : segments[layer]) bundle = tape.Recompute(bundle, &segment);
  }
  const Var hidden = ops::RmsNorm(tape, bundle["hidden"], Find(session, "final_norm.weight"),
                                  model.spec().norm_epsilon);
  ops::CrossEntropyLoss(tape, hidden, Find(session, "head.weight"), batch.labels,
                        batch.loss_weights);
  tape.Backward();

  for (const Parameter* parameter : model.store().parameters()) {
    EXPECT_TRUE(parameter->gradient_written) << parameter->name;
    outcome.gradients[parameter->name] = NumbersOf(parameter->gradient);
  }
  for (const auto& block : model.blocks()) {
    const RoutingRecord& record = block->moe()->balance().record();
    outcome.counts.push_back(NumbersOf(record.counts()));
    outcome.balance_losses.push_back(NumbersOf(record.balance_loss()));
    outcome.z_losses.push_back(NumbersOf(record.z_loss()));
  }
  for (const Tensor& counts : own_counts) outcome.own_counts.push_back(NumbersOf(counts));
  return outcome;
}

// On two ranks, experts over both: exchanges are recomputed too.
std::vector<Outcome> RunOnTwoRanks(Recomputed recomputed, Counted counted = Counted::kOnce,
                                   const std::string& dispatcher = "ALL_TO_ALL") {
  const auto config = LoadRunConfig(
      "configs/recipes/tiny.textproto",
      {"precision.compute=FP64", "parallel.expert_size=2", "parallel.dispatcher=" + dispatcher,
       "model.moe.balance={loss { scope: SEQUENCE weight: 0.01 } loss { weight: 0.05 } "
       "z_loss_weight: 0.01 global_counts: EXACT}"});
  EXPECT_TRUE(config.ok()) << config.status();
  std::vector<Outcome> outcomes(2);
  RunOnThreads(2, {.deadline = std::chrono::minutes(1)}, [&](Communicator& world) {
    auto session = Session::Create(*config, world, TinyDataset(), {});
    ASSERT_TRUE(session.ok()) << session.status();
    outcomes[world.rank()] = RunOnRank(**session, recomputed, counted);
  });
  return outcomes;
}

void ExpectSame(const std::vector<Outcome>& a, const std::vector<Outcome>& b) {
  for (size_t rank = 0; rank < a.size(); ++rank) {
    EXPECT_EQ(a[rank].gradients, b[rank].gradients);  // bit by bit
    EXPECT_EQ(a[rank].counts, b[rank].counts);
    EXPECT_EQ(a[rank].balance_losses, b[rank].balance_losses);
    EXPECT_EQ(a[rank].z_losses, b[rank].z_losses);
  }
}

class RecomputeWith : public testing::TestWithParam<const char*> {  // a dispatcher
 protected:
  static std::vector<Outcome> Outcomes(Recomputed recomputed) {
    return RunOnTwoRanks(recomputed, Counted::kOnce, GetParam());
  }
};

TEST_P(RecomputeWith, OfBlocksChangesNothing) {
  ExpectSame(Outcomes(Recomputed::kNothing), Outcomes(Recomputed::kBlocks));
}

TEST_P(RecomputeWith, OfSegmentsChangesNothing) {
  ExpectSame(Outcomes(Recomputed::kNothing), Outcomes(Recomputed::kSegments));
}

INSTANTIATE_TEST_SUITE_P(All, RecomputeWith, testing::Values("ALL_TO_ALL", "ALL_GATHER"),
                         [](const auto& info) { return info.param; });

TEST(Recompute, CountingOutsideOnceIsNoticed) {
  for (const Recomputed recomputed : {Recomputed::kBlocks, Recomputed::kSegments}) {
    for (const Outcome& rank : RunOnTwoRanks(recomputed, Counted::kOnce)) {
      EXPECT_EQ(rank.own_counts, rank.counts);
    }
    for (const Outcome& rank : RunOnTwoRanks(recomputed, Counted::kEachRun)) {
      EXPECT_NE(rank.own_counts, rank.counts);
    }
  }
}

}  // namespace
}  // namespace moebius
