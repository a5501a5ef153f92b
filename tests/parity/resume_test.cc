// A checkpoint of any layout and ZeRO stage goes on in any other, as if nothing had happened.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <ostream>
#include <string>

#include "core/base/check.h"
#include "tests/parity/parity_run.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/training_state.h"

namespace moebius {
namespace {

constexpr int64_t kSavedStep = 8;
const Overrides kOverrides = {"precision.compute=FP64", "train.sequence_length=16",
                              "model.moe.balance={loss { weight: 0.05 } bias_update_rate: 0.01}"};

struct Resumption {
  Layout before, after;
};

void PrintTo(const Resumption& resumption, std::ostream* out) {
  *out << resumption.before.ToString() << "; then " << resumption.after.ToString();
}

RankAgreement RanksOf(Communicator& world) {
  return {.rank = world.rank(), .world_size = world.size(), .max = [&world](int64_t value) {
            world.AllReduceMax(std::span(&value, 1)).Wait();
            return value;
          }};
}

void Save(const std::string& directory, Session& session) {
  const auto writer =
      CheckpointWriter::Create({.directory = directory, .ranks = RanksOf(session.mesh().world())},
                               &session.context().arena(MemoryTier::kHost));
  CHECK(writer.ok()) << writer.status();
  (*writer)->Save({.step = session.steps_done(),
                   .state = {},
                   .files = {},
                   .tensors = TrainingTensors(session)});
  const absl::Status status = (*writer)->Wait().status;
  CHECK(status.ok()) << status;
}

void Restore(const std::string& directory, Session& session) {
  const auto reader = CheckpointReader::Open(directory + "/" + CheckpointName(kSavedStep));
  CHECK(reader.ok()) << reader.status();
  const absl::Status status = RestoreTraining(*reader, session);
  CHECK(status.ok()) << status;
}

template <class T>
void Append(const std::vector<T>& from, std::vector<T>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

ParityCurve Join(ParityCurve before, const ParityCurve& after) {
  Append(after.loss, &before.loss);
  Append(after.balance_loss, &before.balance_loss);
  Append(after.z_loss, &before.z_loss);
  Append(after.gradient_norm, &before.gradient_norm);
  Append(after.counts, &before.counts);
  before.final_state = after.final_state;
  return before;
}

class AnyLayout : public testing::TestWithParam<Resumption> {};

TEST_P(AnyLayout, GoesOnFromACheckpointOfAnother) {
  static const ParityCurve uninterrupted = TrainOnThreads({}, kOverrides);
  const std::string directory = testing::TempDir() + "/checkpoints";
  std::filesystem::remove_all(directory);
  const ParityCurve before = TrainOnThreads(
      GetParam().before, kOverrides, nullptr,
      {.end = [&](Session& session) { Save(directory, session); }, .last_step = kSavedStep});
  const ParityCurve after =
      TrainOnThreads(GetParam().after, kOverrides, nullptr,
                     {.begin = [&](Session& session) { Restore(directory, session); }});
  EXPECT_EQ(before.loss.size(), static_cast<size_t>(kSavedStep));
  const Difference difference = Compare(uninterrupted, Join(before, after));
  EXPECT_TRUE(difference.Within(kDoubleTolerance)) << difference.ToString();
}

// {ranks, expert_size, micro_batch_size, zero_stage}
INSTANTIATE_TEST_SUITE_P(Pairs, AnyLayout,
                         testing::Values(Resumption{{1, 1, 4, 0}, {4, 2, 2, 1}},
                                         Resumption{{4, 2, 2, 1}, {2, 2, 4, 3}},
                                         Resumption{{2, 1, 4, 2}, {4, 4, 1, 1}},
                                         Resumption{{4, 4, 2, 3}, {1, 1, 4, 0}},
                                         Resumption{{2, 2, 4, 0}, {4, 1, 2, 2}},
                                         Resumption{{4, 1, 2, 3}, {2, 1, 2, 3}}));

}  // namespace
}  // namespace moebius
