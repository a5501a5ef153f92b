#include "parallel/gradient_buckets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <thread>
#include <utility>

#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

Parameter Make(Context& context, const char* name, DType dtype, const Shape& shape,
               std::vector<Replication> replicated) {
  Parameter parameter;
  parameter.name = name;
  parameter.placement = {shape, {}, std::move(replicated)};
  parameter.value = context.Zeros(dtype, shape, "weights");
  return parameter;
}

template <class T>
void Write(Parameter& parameter, T value) {
  for (T& x : parameter.gradient.span<T>()) x = parameter.gradient_written ? x + value : value;
  parameter.gradient_written = true;
}

template <class T>
void ExpectAll(const Parameter& parameter, T value) {
  for (const T x : parameter.gradient.span<T>()) ASSERT_EQ(x, value) << parameter.name;
}

// 4 ranks in 2 expert groups: what is summed over whom is told by the placement alone.
TEST(GradientBuckets, SumWherePartial) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.expert = 2}, world);
    Context context;
    const Replication over_data = {Axis::kData, GradientArrives::kPartial};
    const Replication over_expert_data = {Axis::kExpertData, GradientArrives::kPartial};
    const Replication same = {Axis::kData, GradientArrives::kIdentical};
    Parameter dense = Make(context, "dense", DType::kF32, {3, 7}, {over_data});
    Parameter unused = Make(context, "unused", DType::kF32, {5}, {over_data});
    Parameter expert = Make(context, "expert", DType::kF32, {2, 3, 3}, {over_expert_data});
    Parameter precise = Make(context, "precise", DType::kF64, {9}, {over_data});
    Parameter identical = Make(context, "identical", DType::kF32, {4}, {same});
    Parameter empty = Make(context, "empty", DType::kF32, {0, 8}, {over_expert_data});
    Parameter* const all[] = {&dense, &unused, &expert, &precise, &identical, &empty};
    GradientBuckets buckets(all, *mesh, context);
    EXPECT_EQ(expert.gradient.shape(), (Shape{2, 3, 3}));
    EXPECT_EQ(dense.gradient.storage(), unused.gradient.storage());
    EXPECT_NE(dense.gradient.storage(), expert.gradient.storage());

    const int rank = world.rank();
    for (int step = 1; step <= 3; ++step) {
      buckets.BeginStep(/*num_micro_batches=*/2);
      Write<float>(dense, 1.f + rank);
      Write<float>(dense, 10);
      if (rank == 2) Write<float>(unused, 5);
      if (rank < 2 || step == 1) Write<float>(expert, rank + 1.f);
      Write<double>(precise, step);
      Write<float>(identical, 6);
      buckets.Reduce();
      ExpectAll<float>(dense, 1 + 2 + 3 + 4 + 40);
      ExpectAll<float>(unused, 5);
      ExpectAll<float>(expert, step == 1 ? 2 * (rank % 2) + 4.f : rank % 2 + 1.f);
      ExpectAll<double>(precise, 4. * step);
      ExpectAll<float>(identical, 6);
    }
  });
}

// ---- Stages and buckets ------------------------------------------------------------------------

constexpr Replication kOverData = {Axis::kData, GradientArrives::kPartial};
constexpr Replication kOverExpertData = {Axis::kExpertData, GradientArrives::kPartial};

// Three layers of a dense matrix and experts, with a gain that is used twice.
struct Model {
  explicit Model(Context& context) {
    for (int layer = 0; layer < 3; ++layer) {
      parameters.push_back(Make(context, "dense", DType::kF32, {9, 7}, {kOverData}));
      parameters.push_back(Make(context, "experts", DType::kF32, {2, 5, 3}, {kOverExpertData}));
    }
    parameters.push_back(Make(context, "gain", DType::kF32, {7}, {kOverData}));
    parameters.back().num_uses = 2;
    for (Parameter& parameter : parameters) pointers.push_back(&parameter);
  }

  // What a backward does: the last parameter first, each write in a closure of its own.
  void WriteAll(GradientSink& sink, int rank, int micro_batch) {
    for (int i = static_cast<int>(parameters.size()) - 1; i >= 0; --i)
      Write(sink, i, rank, micro_batch);
    Write(sink, static_cast<int>(parameters.size()) - 1, rank, micro_batch);
  }

  void Write(GradientSink& sink, int i, int rank, int micro_batch) {
    const GradientSlot slot = sink.Open(parameters[i]);
    float element = 0;
    for (float& x : slot.tensor.span<float>()) {
      const float value = std::sin(1.7f * (element++) + 11 * i + 5 * rank + 3 * micro_batch);
      x = slot.accumulate ? x + value : value;
    }
    sink.Written();
  }

  std::vector<Parameter> parameters;
  std::vector<Parameter*> pointers;
};

constexpr int64_t kSmallBuckets = 400;  // bytes: of two tensors at most

// The shares of all buckets one after the other, after two steps of three micro-batches. That they
// are `told` to be more: nothing is reduced before Reduce in stages 0 and 1.
std::vector<float> SharesAfterSteps(const BucketOptions& options, Communicator& world,
                                    int told = 3) {
  const auto mesh = *Mesh::Create({.expert = 2}, world);
  Context context;
  Model model(context);
  GradientBuckets buckets(model.pointers, *mesh, context, options);
  for (int step = 0; step < 2; ++step) {
    buckets.BeginStep(told);
    for (int m = 0; m < 3; ++m) model.WriteAll(buckets, world.rank(), m + 3 * step);
    buckets.Reduce();
  }
  std::vector<float> shares;
  for (size_t b = 0; b < buckets.buckets().size(); ++b) {
    std::ranges::copy(buckets.Share(b).span<float>(), std::back_inserter(shares));
  }
  return shares;
}

TEST(GradientBuckets, StagesGiveTheSameShares) {
  RunOnThreads(4, [](Communicator& world) {
    const auto shares = [&](ZeroStage stage, int told) {
      return SharesAfterSteps({stage, kSmallBuckets}, world, told);
    };
    const std::vector<float> whole = shares(ZeroStage::kReplicated, 4);
    EXPECT_GT(std::ranges::count_if(whole, [](float x) { return x != 0; }), 50);
    for (const int told : {3, 4}) {
      EXPECT_EQ(shares(ZeroStage::kReplicated, told), whole);
      EXPECT_EQ(shares(ZeroStage::kOptimizer, told), whole);
      const std::vector<float> added = shares(ZeroStage::kGradients, told);
      ASSERT_EQ(added.size(), whole.size());
      for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(added[i], whole[i], 1e-5);
    }
  });
}

// A pipeline may open the head's gradient of a micro-batch (forward) before other gradients of the
// one before (backward), and run weight gradients late.
TEST(GradientBuckets, MicroBatchesMayOverlap) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.expert = 2}, world);
    const int rank = world.rank();
    for (const ZeroStage stage : {ZeroStage::kReplicated, ZeroStage::kGradients}) {
      const auto sums = [&](const std::vector<std::pair<int, int>>& writes) {
        Context context;
        Model model(context);
        GradientBuckets buckets(model.pointers, *mesh, context, {stage, kSmallBuckets});
        buckets.BeginStep(/*num_micro_batches=*/2);
        for (const auto& [i, micro_batch] : writes) model.Write(buckets, i, rank, micro_batch);
        buckets.Reduce();
        std::vector<float> shares;
        for (size_t b = 0; b < buckets.buckets().size(); ++b) {
          std::ranges::copy(buckets.Share(b).span<float>(), std::back_inserter(shares));
        }
        return shares;
      };
      std::vector<std::pair<int, int>> in_turn, overlapping = {{6, 0}, {6, 0}, {6, 1}, {6, 1}};
      for (const int m : {0, 1}) {
        in_turn.insert(in_turn.end(), {{6, m}, {6, m}});
        for (int i = 5; i >= 0; --i) {
          in_turn.emplace_back(i, m);
          overlapping.emplace_back(i, m);
        }
      }
      const std::vector<float> expected = sums(in_turn), actual = sums(overlapping);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-5) << i;
    }
  });
}

TEST(GradientBuckets, HoldWholeParametersInBackwardOrder) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.expert = 2}, world);
    Context context;
    Model model(context);
    const std::vector<Bucket> buckets = MakeBuckets(model.pointers, *mesh, kSmallBuckets);
    std::vector<Parameter*> members;
    for (const Bucket& bucket : buckets) {
      EXPECT_EQ(bucket.size % (bucket.group->size() * 16), 0);
      for (const Bucket::Member& member : bucket.members) members.push_back(member.parameter);
    }
    std::vector<Parameter*> expected;  // bucket by bucket: 6 and 4, 2, the experts, 0
    for (const int i : {6, 4, 2, 5, 3, 1, 0}) expected.push_back(&model.parameters[i]);
    EXPECT_EQ(buckets.size(), 4u);
    EXPECT_EQ(members, expected);
  });
}

// The parts of all ranks' shares are the parameter, once.
TEST(GradientBuckets, SharesPartitionEveryParameter) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({}, world);
    Context context;
    Model model(context);
    for (const Bucket& bucket : MakeBuckets(model.pointers, *mesh, 1 << 20)) {
      std::vector<int64_t> next(bucket.members.size());
      for (int rank = 0; rank < 4; ++rank) {
        const int64_t begin = rank * bucket.share_size();
        const auto parts = bucket.PartsWithin(begin, begin + bucket.share_size());
        for (size_t i = 0; i < parts.size(); ++i) {
          if (parts[i].begin == parts[i].end) continue;
          EXPECT_EQ(parts[i].begin, std::exchange(next[i], parts[i].end));
          EXPECT_EQ(parts[i].offset, bucket.members[i].offset + parts[i].begin - begin);
        }
      }
      for (size_t i = 0; i < next.size(); ++i) {
        EXPECT_EQ(next[i], bucket.members[i].parameter->value.size());
      }
    }
  });
}

// A bucket is on its way before the last gradient is written.
TEST(GradientBuckets, StartWhileBackwardGoesOn) {
  RunOnThreads(2, [](Communicator& world) {
    const auto mesh = *Mesh::Create({}, world);
    Context context;
    Parameter first = Make(context, "first", DType::kF32, {64}, {kOverData});
    Parameter last = Make(context, "last", DType::kF32, {64}, {kOverData});
    Parameter* const all[] = {&first, &last};
    GradientBuckets buckets(all, *mesh, context, {ZeroStage::kReplicated, 256});
    const auto write = [&](Parameter& parameter) {
      const GradientSlot slot = buckets.Open(parameter);
      for (float& x : slot.tensor.span<float>()) x = slot.accumulate ? x + 1 : 1;
      buckets.Written();
    };
    buckets.BeginStep(/*num_micro_batches=*/2);
    for (const bool is_last : {false, true}) {
      write(last);
      for (int i = 0; i < 1000 && is_last && last.gradient.data<float>()[0] != 4; ++i) {
        buckets.Written();  // lets the reduction go on
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      EXPECT_EQ(last.gradient.data<float>()[0], is_last ? 4 : 1);
      write(first);
    }
    buckets.Reduce();
    ExpectAll<float>(first, 4);
    ExpectAll<float>(last, 4);
  });
}

// From stage 2 on a whole bucket is there only while it is filled and reduced.
TEST(GradientBuckets, TakeLessMemoryWhereGradientsAreSharded) {
  RunOnThreads(2, [](Communicator& world) {
    const auto mesh = *Mesh::Create({}, world);
    constexpr int64_t kBytes = 4 << 10;
    for (const ZeroStage stage : {ZeroStage::kOptimizer, ZeroStage::kGradients}) {
      Context context;
      std::vector<Parameter> parameters;
      for (int i = 0; i < 16; ++i) {
        parameters.push_back(Make(context, "layer", DType::kF32, {kBytes / 4}, {kOverData}));
      }
      std::vector<Parameter*> pointers;
      for (Parameter& parameter : parameters) pointers.push_back(&parameter);
      GradientBuckets buckets(pointers, *mesh, context, {stage, kBytes});
      buckets.BeginStep(/*num_micro_batches=*/2);
      for (int m = 0; m < 2; ++m) {
        for (int i = 15; i >= 0; --i) {
          const GradientSlot slot = buckets.Open(parameters[i]);
          std::ranges::fill(slot.tensor.span<float>(), 1.f);
          buckets.Written();
        }
      }
      buckets.Reduce();
      const Arena::Use use = context.arena().by_name()["gradients"];
      if (stage == ZeroStage::kOptimizer) {
        EXPECT_EQ(use.bytes, 16 * kBytes);
      } else {
        EXPECT_EQ(use.bytes, 16 * kBytes / 2);              // the shares
        EXPECT_LE(use.peak_bytes, use.bytes + 3 * kBytes);  // two buckets, and a share to be added
      }
    }
  });
}

TEST(GradientBucketsDeathTest, OneUseTooMany) {
  RunOnThreads(2, [](Communicator& world) {
    const auto mesh = *Mesh::Create({}, world);
    Context context;
    Parameter once = Make(context, "once", DType::kF32, {4}, {kOverData});
    Parameter* const all[] = {&once};
    GradientBuckets buckets(all, *mesh, context);
    buckets.BeginStep(/*num_micro_batches=*/1);
    buckets.Open(once);
    buckets.Written();
    if (world.rank() == 0) {
      EXPECT_DEATH(buckets.Open(once), "once has more than its 1 uses in a micro-batch");
    }
    buckets.Reduce();
  });
}

// Nobody else has a part of it: in no stage is it taken apart, and it takes no turn of those that
// travel.
TEST(GradientBuckets, StayInPlaceWithoutPeers) {
  RunOnThreads(1, [](Communicator& world) {
    for (const ZeroStage stage : {ZeroStage::kReplicated, ZeroStage::kParameters}) {
      const auto mesh = *Mesh::Create({}, world);
      Context context;
      Parameter parameter = Make(context, "alone", DType::kF32, {4}, {kOverData});
      Parameter* const all[] = {&parameter};
      GradientBuckets buckets(all, *mesh, context, {.stage = stage});
      const int64_t bytes = context.arena().by_name()["gradients"].bytes;
      for (int step = 1; step <= 2; ++step) {
        buckets.BeginStep(/*num_micro_batches=*/2);
        for (int m = 0; m < 2; ++m) {
          const GradientSlot slot = buckets.Open(parameter);
          for (float& x : slot.tensor.span<float>()) x = (slot.accumulate ? x : 0) + step;
          buckets.Written();
          EXPECT_EQ(context.arena().by_name()["gradients"].bytes, bytes);
        }
        buckets.Reduce();
        for (const float x : buckets.Own(0).span<float>().first(4)) EXPECT_EQ(x, 2 * step);
      }
      buckets.BeginStep(1);
      buckets.Reduce();  // nobody has written it
      for (const float x : buckets.Own(0).span<float>()) EXPECT_EQ(x, 0);
    }
  });
}

}  // namespace
}  // namespace moebius
