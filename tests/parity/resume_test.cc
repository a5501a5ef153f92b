// A checkpoint of any layout goes on in any other, as if nothing had happened.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "tests/parity/cells.h"
#include "tests/parity/parity_run.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/training_state.h"

namespace moebius {
namespace {

constexpr int64_t kSavedStep = 8;
constexpr int kNumPairs = 30;
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

// How far the curve and the state of a training that went on in another layout are from those of
// one rank that was not interrupted.
Difference Resume(const Resumption& layouts) {
  static const ParityCurve uninterrupted = TrainOnThreads({}, kCutEverywhere);
  const std::string directory = testing::TempDir() + "/checkpoints";
  std::filesystem::remove_all(directory);
  const ParityCurve before = TrainOnThreads(
      layouts.before, kCutEverywhere, nullptr,
      {.end = [&](Session& session) { Save(directory, session); }, .last_step = kSavedStep});
  const ParityCurve after =
      TrainOnThreads(layouts.after, kCutEverywhere, nullptr,
                     {.begin = [&](Session& session) { Restore(directory, session); }});
  EXPECT_EQ(before.loss.size(), static_cast<size_t>(kSavedStep));
  return Compare(uninterrupted, Join(before, after));
}

class AnyLayout : public testing::TestWithParam<Resumption> {};

TEST_P(AnyLayout, GoesOnFromACheckpointOfAnother) {
  const Difference difference = Resume(GetParam());
  std::printf("| %s | %s | %s |\n", GetParam().before.ToString().c_str(),
              GetParam().after.ToString().c_str(), difference.ToString().c_str());
  EXPECT_TRUE(difference.Within(kDoubleTolerance)) << difference.ToString();
}

std::vector<Resumption> DrawnPairs() {
  const std::vector<Layout> layouts = DrawLayouts(kCutEverywhere, 2 * kNumPairs, /*seed=*/1);
  std::vector<Resumption> pairs;
  for (int i = 0; i < kNumPairs; ++i) pairs.push_back({layouts[2 * i], layouts[2 * i + 1]});
  return pairs;
}

INSTANTIATE_TEST_SUITE_P(Drawn, AnyLayout, testing::ValuesIn(DrawnPairs()));

}  // namespace
}  // namespace moebius
