// What ZeRO stages promise: the numbers of one rank, the same bits where sums have one order, and
// the memory of a share. docs/parity.md shows what this prints.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/tensor/arena.h"
#include "tests/parity/parity_run.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/training_state.h"

namespace moebius {
namespace {

struct Cell {
  const char* name;
  Overrides overrides;
  Layout layout;
  Tolerance tolerance = kDoubleTolerance;
};

void PrintTo(const Cell& cell, std::ostream* out) {
  *out << cell.name << ": " << cell.layout.ToString();
}

const Overrides kTiny = {"precision.compute=FP64", "train.sequence_length=16"};

Overrides With(Overrides overrides, const Overrides& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

const Overrides kLosses = {
    "model.moe.balance={loss { scope: SEQUENCE weight: 0.01 } loss { weight: 0.05 } "
    "z_loss_weight: 0.01 bias_update_rate: 0.01 global_counts: EXACT}"};
const Overrides kMany = With(kTiny, kLosses);
const Overrides kSomeEmpty = With(kTiny, {"model.moe.debug_routing=SOME_EMPTY"});
const Overrides kTied =
    With(kTiny, {"model.num_layers=3", "model.moe.layers=[1]", "model.ffn_hidden_size=48",
                 "model.tie_embeddings=true", "model.qk_norm=PER_HEAD"});
// Seeds that keep near ties apart: see parity_test.
const Overrides kTinySingle = {"run.seed=6"};
const Overrides kManySingle = With(kMany, {"precision.compute=FP32", "run.seed=15"});

// {ranks, expert_size, micro_batch_size, zero_stage, more}
const Cell kCells[] = {
    {"tiny", kTiny, {2, 1, 2, 1}},
    {"many_losses", kMany, {2, 2, 4, 1}},
    {"tied", kTied, {4, 1, 1, 1}},
    {"tiny", kTiny, {4, 2, 2, 1}},
    {"some_empty", kSomeEmpty, {4, 4, 4, 1}},
    {"tied", kTied, {2, 1, 1, 2}},
    {"tiny", kTiny, {2, 2, 2, 2}},
    {"tiny", kTiny, {4, 1, 4, 2}},
    {"many_losses", kMany, {4, 2, 1, 2}},
    {"tiny", kTiny, {4, 4, 2, 2}},
    {"tiny", kTiny, {2, 1, 2, 3}},
    {"some_empty", kSomeEmpty, {2, 2, 1, 3}},
    {"many_losses", kMany, {4, 1, 2, 3}},
    {"tied", kTied, {4, 2, 1, 3}},
    {"tiny", kTiny, {4, 4, 1, 3}},
    {"tiny", kTiny, {1, 1, 2, 3}},
    {"many_losses, tensor 2", kMany, {4, 2, 2, 1, {"parallel.tensor_size=2"}}},
    {"tied, tensor 2", kTied, {4, 1, 4, 2, {"parallel.tensor_size=2"}}},
    {"tied, tensor 2", kTied, {4, 2, 2, 3, {"parallel.tensor_size=2"}}},
    {"many_losses, context 2", kMany, {4, 4, 4, 3, {"parallel.context_size=2"}}},
    {"tiny, FP32", kTinySingle, {4, 2, 2, 1}, kSingleTolerance},
    {"many_losses, FP32", kManySingle, {2, 1, 2, 2}, kSingleTolerance},
    {"tiny, FP32", kTinySingle, {4, 2, 1, 3}, kSingleTolerance},
};

const ParityCurve& OneRank(const Overrides& overrides) {
  static std::map<Overrides, ParityCurve> trained;
  const auto [at, is_new] = trained.try_emplace(overrides);
  if (is_new) at->second = TrainOnThreads({}, overrides);
  return at->second;
}

class ZeroParity : public testing::TestWithParam<Cell> {};

TEST_P(ZeroParity, StagesAgreeWithOneRank) {
  const auto& [name, overrides, layout, tolerance] = GetParam();
  const ParityCurve& one = OneRank(overrides);
  const Difference difference = Compare(one, TrainOnThreads(layout, overrides));
  std::printf("| %s | %d | %d | %d | %d | %s | %.1e |\n", name, layout.ranks, layout.expert_size,
              layout.micro_batch_size, layout.zero_stage, difference.ToString().c_str(),
              one.min_margin);
  EXPECT_TRUE(difference.Within(tolerance)) << difference.ToString();
}

INSTANTIATE_TEST_SUITE_P(Cells, ZeroParity, testing::ValuesIn(kCells));

void ExpectSameBits(const ParityCurve& a, const ParityCurve& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.balance_loss, b.balance_loss);
  EXPECT_EQ(a.z_loss, b.z_loss);
  EXPECT_EQ(a.gradient_norm, b.gradient_norm);
  EXPECT_EQ(a.final_state, b.final_state);
}

// Gradients of stages 0 and 1 add up in one order, and so do those of stages 2 and 3.
TEST(ZeroStages, AgreeToTheBitWhereSumsHaveOneOrder) {
  for (const Overrides& overrides : {kMany, kManySingle}) {
    for (const int stage : {0, 2}) {
      ExpectSameBits(TrainOnThreads({4, 2, 2, stage}, overrides),
                     TrainOnThreads({4, 2, 2, stage + 1}, overrides));
    }
  }
}

using Uses = std::map<std::string, Arena::Use>;

const Overrides kDeep = With(kTiny, {"model.num_layers=8"});

// What rank 0 of 4 holds after two steps of four micro-batches.
Uses MemoryAfterTwoSteps(int zero_stage, const Overrides& more = {}) {
  Uses uses;
  const auto look = [&](Session& session) {
    if (session.mesh().world().rank() == 0) uses = session.context().arena().by_name();
  };
  TrainOnThreads({4, 1, 1, zero_stage, more}, kDeep, nullptr, {.end = look, .last_step = 2});
  return uses;
}

// A quarter, up to the padding of buckets, of what each stage shares out; and whole buckets come
// and go.
TEST(ZeroStages, TakeTheMemoryOfAShare) {
  const Uses whole = MemoryAfterTwoSteps(0);
  for (const int stage : {1, 2, 3}) {
    Uses uses = MemoryAfterTwoSteps(stage);
    const auto part = [&](const char* name, bool peak = false) {
      const Arena::Use &mine = uses[name], &all = whole.at(name);
      return static_cast<double>(peak ? mine.peak_bytes : mine.bytes) /
             static_cast<double>(all.bytes);
    };
    const auto expected = [](bool shared) { return shared ? 0.25 : 1; };
    EXPECT_NEAR(part("optimizer.m"), 0.25, 0.01) << stage;
    EXPECT_NEAR(part("optimizer.v"), 0.25, 0.01) << stage;
    EXPECT_NEAR(part("gradients"), expected(stage >= 2), 0.01) << stage;
    EXPECT_NEAR(part("parameters"), expected(stage >= 3), 0.01) << stage;
    EXPECT_LT(part("gradients", /*peak=*/true), stage >= 2 ? 0.5 : 1.01) << stage;
    EXPECT_LT(part("parameters", /*peak=*/true), stage >= 3 ? 0.26 : 1.3) << stage;
  }
}

// Under every schedule, too, whole buckets come and go: those that one micro-batch fills, and those
// that reach over two chunks.
TEST(ZeroStages, HoldSharesInPipelines) {
  const Overrides schedules[] = {
      {"parallel.pipeline_schedule=GPIPE"},
      {"parallel.pipeline_schedule=ONE_F_ONE_B"},
      {"parallel.pipeline_schedule=INTERLEAVED", "parallel.virtual_pipeline_size=2"},
      {"parallel.pipeline_schedule=ZB_H1"},
      {"parallel.pipeline_schedule=ZB_V", "parallel.virtual_pipeline_size=2"},
  };
  for (const Overrides& schedule : schedules) {
    SCOPED_TRACE(schedule[0]);
    const Overrides two_stages = With({"parallel.pipeline_size=2"}, schedule);
    const auto whole = static_cast<double>(MemoryAfterTwoSteps(0, two_stages)["gradients"].bytes);
    const Arena::Use shared = MemoryAfterTwoSteps(2, two_stages)["gradients"];
    EXPECT_NEAR(static_cast<double>(shared.bytes) / whole, 0.5, 0.02);
    EXPECT_LE(shared.peak_bytes, shared.bytes + 6 * kBucketBytes);
    EXPECT_LT(static_cast<double>(shared.peak_bytes) / whole, 0.9);
  }
}

// Bytes of the buckets of a model's largest pair of neighbouring blocks, at most.
TEST(ZeroStages, GatherTwoBlocksAtMost) {
  const double all = static_cast<double>(MemoryAfterTwoSteps(0).at("parameters").bytes);
  for (const char* recompute : {"NONE", "FULL"}) {
    Uses uses = MemoryAfterTwoSteps(3, {absl::StrCat("parallel.recompute=", recompute)});
    const Arena::Use gathered = uses["gathered_parameters"];
    EXPECT_GT(gathered.peak_bytes, 0);
    // Blocks are an eighth of the model, less embedding and head; of each group of ranks a bucket
    // on either side reaches beyond them.
    EXPECT_LT(gathered.peak_bytes, 2 * all / 8 + 4 * kBucketBytes);
  }
}

// Shares alone, and no more than a bucket beside them: from the first moment on, drawn or restored.
void ExpectNoMoreThanShares(Session& session) {
  Arena& arena = session.context().arena();
  const Arena::Use parameters = arena.by_name()["parameters"];
  EXPECT_EQ(parameters.peak_bytes, parameters.bytes);
  EXPECT_LE(arena.total().peak_bytes, arena.total().bytes + kBucketBytes);
  EXPECT_EQ(arena.by_name()["gathered_parameters"].peak_bytes, 0);
}

TEST(ZeroStages, StartWithShares) {
  const Layout layout = {4, 1, 1, 3};
  const std::string directory = testing::TempDir() + "/zero";
  const auto save = [&](Session& session) {
    Communicator& world = session.mesh().world();
    const auto max = [&world](int64_t value) {
      world.AllReduceMax(std::span(&value, 1)).Wait();
      return value;
    };
    const auto writer = CheckpointWriter::Create(
        {.directory = directory,
         .ranks = {.rank = world.rank(), .world_size = world.size(), .max = max}},
        &session.context().arena(MemoryTier::kHost));
    CHECK(writer.ok()) << writer.status();
    (*writer)->Save({.step = 1, .state = {}, .files = {}, .tensors = TrainingTensors(session)});
    CHECK((*writer)->Wait().status.ok());
  };
  const auto restore = [&](Session& session) {
    const auto reader = CheckpointReader::Open(directory + "/" + CheckpointName(1));
    CHECK(reader.ok()) << reader.status();
    CHECK(RestoreTraining(*reader, session).ok());
    ExpectNoMoreThanShares(session);
  };
  const ParityCurve drawn = TrainOnThreads(
      layout, kDeep, nullptr, {.begin = ExpectNoMoreThanShares, .end = save, .last_step = 1});
  ExpectSameBits(TrainOnThreads({4, 1, 1, 2}, kDeep, nullptr, {.last_step = 1}), drawn);
  const ParityCurve restored =
      TrainOnThreads(layout, kDeep, nullptr, {.begin = restore, .last_step = 1});
  EXPECT_EQ(restored.final_state, drawn.final_state);
}

}  // namespace
}  // namespace moebius
