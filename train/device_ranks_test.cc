// Steps of ranks with a device each, which exchange from memory to memory: on GPUs that the CPU
// plays, over a fake NCCL (kernels/cuda/emulation/fake_nccl.cc).
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/copy.h"
#include "kernels/open_cuda.h"
#include "parallel/device_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"

namespace moebius {
namespace {

constexpr char kPlugin[] = "kernels/cuda/libmoebius_cuda_emulated.so";
constexpr char kFakeNccl[] = "kernels/cuda/emulation/libnccl_fake.so";
constexpr int kRanks = 2, kSteps = 2;

// What a rank's steps came to, and how often its host waited for its device in the last one.
struct Training {
  std::vector<std::pair<double, double>> curve;  // loss, gradient norm
  int64_t num_retries = 0, num_waits = 0;
  std::vector<std::vector<std::byte>> parameters;
};

Training Train(Communicator& world, const RunConfig& config) {
  const std::shared_ptr<Accelerator> accelerator = *OpenCuda(kPlugin, 0);
  DeviceCommunicator communicator(world, accelerator,
                                  *OpenDeviceCollectives(kPlugin, accelerator, kFakeNccl));
  const auto session =
      Session::Create(config, communicator, TinyDataset(),
                      {.device = {DeviceKind::kCuda, 0}, .accelerator = accelerator});
  CHECK(session.ok()) << session.status();
  Training training;
  for (int i = 0; i < kSteps; ++i) {
    const int64_t before = accelerator->num_waits();
    const StepResult result = (*session)->Step();
    EXPECT_TRUE(result.updated);
    training.curve.emplace_back(result.loss, result.gradient_norm);
    training.num_retries += result.num_retries;
    training.num_waits = accelerator->num_waits() - before;
  }
  for (const Parameter* x : (*session)->model().store().parameters()) {
    training.parameters.push_back(test::ToBytes(x->value));
  }
  return training;
}

// By rank.
std::vector<Training> TrainRanks(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"parallel.expert_size=2", "train.global_batch_size=2"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const RunConfig config = TinyConfig(all);
  std::vector<Training> trainings(kRanks);
  RunOnThreads(kRanks, {.deadline = std::chrono::minutes(2)},
               [&](Communicator& world) { trainings[world.rank()] = Train(world, config); });
  return trainings;
}

// Of exchanges of a fixed length the host reads no count: it waits for its device to report, as
// that of one rank does. Results are those of the exact exchange.
TEST(DeviceRanks, WaitOnceAStepByBoundedExchanges) {
  for (const char* precision : {"precision.compute=FP32", "precision.compute=BF16"}) {
    SCOPED_TRACE(precision);
    const auto exact = TrainRanks({precision});
    const auto bounded = TrainRanks({precision, "parallel.exchange_capacity=0.5"});
    for (int r = 0; r < kRanks; ++r) {
      EXPECT_GT(exact[r].num_waits, 1);
      EXPECT_EQ(bounded[r].num_waits, 1);
      EXPECT_GT(bounded[r].num_retries, 0);
      EXPECT_EQ(bounded[r].curve, exact[r].curve);
      EXPECT_TRUE(bounded[r].parameters == exact[r].parameters);
    }
  }
}

}  // namespace
}  // namespace moebius
