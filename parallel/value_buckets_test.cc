#include "parallel/value_buckets.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "parallel/gathered_weights.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

constexpr int64_t kElements = 1024, kBytes = 4 * kElements;
constexpr int kNumParameters = 16;

// One parameter a bucket, replicated over data; element i of parameter p is 10000 p + i.
class Model {
 public:
  Model(Communicator& world, ZeroStage stage) : mesh_(*Mesh::Create({}, world)) {
    for (int p = 0; p < kNumParameters; ++p) {
      Parameter& parameter = parameters_.emplace_back();
      parameter.name = "weight";
      parameter.placement = {{2, kElements / 2}, {}, {{Axis::kData, GradientArrives::kPartial}}};
      parameter.value = context_.Empty(DType::kF32, {2, kElements / 2}, "parameters");
      std::iota(parameter.value.data<float>(), parameter.value.data<float>() + kElements,
                10000.f * p);
    }
    std::vector<Parameter*> pointers;
    for (Parameter& parameter : parameters_) pointers.push_back(&parameter);
    buckets_ = MakeBuckets(pointers, *mesh_, kBytes);
    values_.emplace(buckets_, stage, context_);
  }

  // Adds `amount` to what this rank updates.
  void Update(float amount) {
    values_->BeginUpdate();
    for (size_t b = 0; b < buckets_.size(); ++b) {
      const int64_t begin = buckets_[b].share_begin(), size = buckets_[b].share_size();
      for (const Bucket::Part& part : buckets_[b].PartsWithin(begin, begin + size)) {
        for (float& x : values_->Own(b, part).span<float>()) x += amount;
        ++part.parameter->version;
      }
      values_->Updated(b).Wait();
    }
  }

  static void ExpectValues(const Tensor& value, int p, float added) {
    EXPECT_EQ(value.shape(), (Shape{2, kElements / 2}));
    for (int64_t i = 0; i < kElements; ++i) {
      ASSERT_EQ(value.data<float>()[i], 10000.f * p + i + added) << p;
    }
  }

  Parameter& parameter(int p) { return parameters_[p]; }
  Context& context() { return context_; }
  const std::vector<Bucket>& buckets() { return buckets_; }
  ValueBuckets& values() { return *values_; }

 private:
  Context context_;
  std::unique_ptr<Mesh> mesh_;
  std::vector<Parameter> parameters_;
  std::vector<Bucket> buckets_;
  std::optional<ValueBuckets> values_;
};

int64_t ImageElements(WeightFormat format) {
  return kernels::WeightImageShape({2, kElements / 2}, format, DType::kF32, Context())
      .num_elements();
}

TEST(ValueBuckets, FetchWhatOtherRanksUpdated) {
  RunOnThreads(4, [](Communicator& world) {
    for (const ZeroStage stage : {ZeroStage::kOptimizer, ZeroStage::kGradients}) {
      Model model(world, stage);
      for (int step = 0; step <= 2; ++step) {
        if (step > 0) model.Update(1);
        for (int p = 0; p < kNumParameters; ++p) {
          Model::ExpectValues(model.parameter(p).value, p, static_cast<float>(step));
        }
      }
    }
  });
}

TEST(GatheredWeights, ReadWhatIsUpToDate) {
  RunOnThreads(4, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    for (int step = 0; step <= 2; ++step) {
      if (step > 0) model.Update(1);
      for (const int p : {0, 1, 2, 1, 0, 9, 15, 3}) {
        const Tensor value = weights.Lease(model.parameter(p), WeightFormat::kPlain, DType::kF32);
        Model::ExpectValues(value, p, static_cast<float>(step));
      }
    }
    // Values that were read from elsewhere, as from a checkpoint.
    for (size_t b = 0; b < model.buckets().size(); ++b) {
      const Bucket& bucket = model.buckets()[b];
      const int64_t begin = bucket.share_begin();
      for (const auto& part : bucket.PartsWithin(begin, begin + bucket.share_size())) {
        for (float& x : model.values().Own(b, part).span<float>()) x += 5;
      }
    }
    ++model.parameter(3).version;
    Model::ExpectValues(weights.Lease(model.parameter(3), WeightFormat::kPlain, DType::kF32), 3,
                        2 + 5);
  });
}

// Gathering does not wait for the other ranks: rank 1 expects later than rank 0, which has gone on.
TEST(GatheredWeights, GatherWhatIsExpectedMeanwhile) {
  RunOnThreads(2, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    Arena& arena = model.context().arena();
    for (int p = 0; p + 1 < kNumParameters; ++p) {
      int64_t turn = p;
      if (world.rank() == 1) world.Receive(std::span(&turn, 1), 0).Wait();
      Parameter* const now[] = {&model.parameter(p)};
      Parameter* const next[] = {&model.parameter(p + 1)};
      weights.Expect(now, next);
      if (world.rank() == 0) world.Send(std::span(&turn, 1), 1).Wait();
      EXPECT_EQ(turn, p);
      EXPECT_EQ(arena.by_name()["gathered_parameters"].bytes, 2 * kBytes);
      EXPECT_TRUE(model.parameter(p + 1).value.device().is_meta());
      const Tensor value = weights.Lease(model.parameter(p), WeightFormat::kPlain, DType::kF32);
      Model::ExpectValues(value, p, 0);
    }
    EXPECT_EQ(arena.by_name()["gathered_parameters"].peak_bytes, 2 * kBytes);
    weights.Expect({}, {});
    EXPECT_EQ(arena.by_name()["gathered_parameters"].bytes, 0);
  });
}

// There is nobody to gather from: values stay where they are, and no copy is made.
TEST(GatheredWeights, LeaveInPlaceWhatHasNoPeers) {
  RunOnThreads(1, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    Parameter* const now[] = {&model.parameter(4)};
    weights.Expect(now, {});
    const Tensor value = weights.Lease(model.parameter(4), WeightFormat::kPlain, DType::kF32);
    model.Update(1);
    weights.Expect({}, {});
    Model::ExpectValues(value, 4, 1);  // the same memory
    EXPECT_EQ(model.context().arena().by_name()["gathered_parameters"].peak_bytes, 0);
  });
}

// What was on its way before an update is gathered again.
TEST(GatheredWeights, ExpectBeforeAnUpdateAndLeaseBehindIt) {
  RunOnThreads(2, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    Parameter* const now[] = {&model.parameter(4)};
    Parameter* const next[] = {&model.parameter(5)};
    weights.Expect(now, next);
    model.Update(1);
    for (const int p : {4, 5, 6}) {
      const Tensor value = weights.Lease(model.parameter(p), WeightFormat::kPlain, DType::kF32);
      Model::ExpectValues(value, p, 1);
    }
  });
}

// A lease outlives the bucket it was taken from.
TEST(GatheredWeights, KeepALeaseAsLongAsItIsHeld) {
  RunOnThreads(2, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    const Tensor held = weights.Lease(model.parameter(0), WeightFormat::kPlain, DType::kF32);
    for (int p = 1; p < kNumParameters; ++p) {
      weights.Lease(model.parameter(p), WeightFormat::kPlain, DType::kF32);
    }
    EXPECT_TRUE(model.parameter(0).value.device().is_meta());
    Model::ExpectValues(held, 0, 0);
  });
}

// At rest a rank of two holds half of the values; in use two buckets and their images are added.
TEST(GatheredWeights, TakeTheMemoryOfTwoBuckets) {
  RunOnThreads(2, [](Communicator& world) {
    Model model(world, ZeroStage::kParameters);
    GatheredWeights weights(model.buckets(), model.values(), model.context());
    Arena& arena = model.context().arena();
    EXPECT_EQ(arena.by_name()["parameters"].bytes, kNumParameters * kBytes / 2);
    for (int pass = 0; pass < 2; ++pass) {
      for (int p = 0; p < kNumParameters; ++p) {
        weights.Lease(model.parameter(p), WeightFormat::kPacked, DType::kF32);
        weights.Lease(model.parameter(p), WeightFormat::kPackedTransposed, DType::kF32);
      }
    }
    EXPECT_EQ(arena.by_name()["parameters"].bytes, kNumParameters * kBytes / 2);
    EXPECT_LE(arena.by_name()["gathered_parameters"].peak_bytes, 2 * kBytes);
    const int64_t image_bytes =
        4 * (ImageElements(WeightFormat::kPacked) + ImageElements(WeightFormat::kPackedTransposed));
    EXPECT_LE(arena.by_name()["weight_image"].peak_bytes, 2 * image_bytes);
  });
}

}  // namespace
}  // namespace moebius
