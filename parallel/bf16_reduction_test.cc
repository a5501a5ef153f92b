// Gradients that travel in BF16: where they are rounded, and how many bytes that saves.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "parallel/board.h"
#include "parallel/gradient_buckets.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

constexpr int kNumRanks = 4;
constexpr int64_t kElements = 4096;
constexpr double kRounding = 1.0 / 256;  // of one number to BF16: 8 bits, to nearest

// What a rank adds up: signs and magnitudes mixed, so that parts cancel in places.
float PartOf(int rank, int64_t i) {
  return std::sin(1.7f * static_cast<float>(i) + 5 * static_cast<float>(rank)) *
         std::pow(10.f, static_cast<float>(i % 7 - 3));
}

// The gradient of one parameter over the ranks of `world`, as this rank holds it.
std::vector<float> Reduced(const BucketOptions& options, Communicator& world) {
  const auto mesh = *Mesh::Create({}, world);
  Context context;
  Parameter parameter;
  parameter.name = "weight";
  parameter.placement = {{kElements}, {}, {{Axis::kData, GradientArrives::kPartial}}};
  parameter.value = context.Zeros(DType::kF32, {kElements}, "weights");
  Parameter* const all[] = {&parameter};
  GradientBuckets buckets(all, *mesh, context, options);
  const auto slot = buckets.Open(parameter).tensor.span<float>();
  for (int64_t i = 0; i < kElements; ++i) slot[i] = PartOf(world.rank(), i);
  buckets.Written();
  buckets.Reduce();
  const auto own = buckets.Own(0).span<float>();
  return {own.begin(), own.end()};
}

class ReducedInBf16 : public testing::TestWithParam<ZeroStage> {};

TEST_P(ReducedInBf16, RoundsEachPartOnceAndTheSumWhereItTravelsBack) {
  const ZeroStage stage = GetParam();
  RunOnThreads(kNumRanks, [stage](Communicator& world) {
    const std::vector<float> rounded = Reduced({.stage = stage, .reduces_in_bf16 = true}, world);
    const bool shares = stage != ZeroStage::kReplicated;
    const int64_t begin = shares ? world.rank() * kElements / kNumRanks : 0;
    int64_t num_rounded = 0;
    for (int64_t i = 0; i < std::ssize(rounded); ++i) {
      double sum = 0, magnitudes = 0;
      float sum_of_rounded = 0;
      for (int r = 0; r < kNumRanks; ++r) {
        const float part = PartOf(r, begin + i);
        sum += part;
        magnitudes += std::abs(part);
        sum_of_rounded += static_cast<float>(BF16(part));
      }
      if (!shares) sum_of_rounded = static_cast<float>(BF16(sum_of_rounded));
      ASSERT_EQ(rounded[i], sum_of_rounded) << i;
      ASSERT_NEAR(rounded[i], sum, (shares ? 1 : 2.01) * kRounding * magnitudes) << i;
      num_rounded += rounded[i] != static_cast<float>(sum);
    }
    EXPECT_GT(num_rounded, std::ssize(rounded) / 2);
  });
}

TEST_P(ReducedInBf16, RoundsNothingOfOneRank) {
  RunOnThreads(1, [](Communicator& world) {
    const std::vector<float> own = Reduced({.stage = GetParam(), .reduces_in_bf16 = true}, world);
    for (int64_t i = 0; i < kElements; ++i) ASSERT_EQ(own[i], PartOf(0, i));
  });
}

// Bytes that rank 0 hands to reductions, as its board shows them.
int64_t BytesOfReductions(const BucketOptions& options) {
  std::weak_ptr<Board> board;
  std::mutex mutex;
  int64_t bytes = 0;
  RunOnThreads(
      kNumRanks,
      {.on_start =
           [&](int, std::weak_ptr<Board> shown) {
             const std::lock_guard lock(mutex);
             board = std::move(shown);
           }},
      [&](Communicator& world) {
        Reduced(options, world);
        if (world.rank() != 0) return;
        for (const ShownCall& shown : board.lock()->History(0)) {
          const Collective collective = shown.call.collective;
          if (collective == Collective::kAllReduce || collective == Collective::kReduceScatter) {
            bytes += shown.call.bytes;
          }
        }
      });
  return bytes;
}

TEST_P(ReducedInBf16, SendsHalfTheBytes) {
  EXPECT_EQ(BytesOfReductions({.stage = GetParam()}), 4 * kElements);
  EXPECT_EQ(BytesOfReductions({.stage = GetParam(), .reduces_in_bf16 = true}), 2 * kElements);
}

INSTANTIATE_TEST_SUITE_P(Stages, ReducedInBf16,
                         testing::Values(ZeroStage::kReplicated, ZeroStage::kOptimizer,
                                         ZeroStage::kGradients));

}  // namespace
}  // namespace moebius
