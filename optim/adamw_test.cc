#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/weight_images.h"
#include "parallel/gathered_weights.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/op_counts.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

// Two weights that are replicated over all ranks, in one bucket. Where it is shared out, the large
// one is cut; the small one lies within the share of rank 0.
class Model {
 public:
  Model(Communicator& world, ZeroStage stage, Device device = kCpu)
      : context_({.device = device, .observer = &counts_}), mesh_(*Mesh::Create({}, world)) {
    for (const auto& [name, shape] : {std::pair{"large", Shape{3, 40, 32}}, {"small", {33, 7}}}) {
      Parameter& parameter = parameters_.emplace_back();
      parameter.name = name;
      parameter.placement = {shape, {}, {{Axis::kData, GradientArrives::kPartial}}};
      parameter.value = Random(name, shape);
    }
    Parameter* const all[] = {&parameters_[0], &parameters_[1]};
    gradients_.emplace(all, *mesh_, context_, BucketOptions{.stage = stage});
    values_.emplace(gradients_->buckets(), stage, context_);
    optimizer_.emplace(AdamWSpec{}, *gradients_, *values_, context_);
    if (stage == ZeroStage::kParameters) {
      weights_ = std::make_unique<GatheredWeights>(gradients_->buckets(), *values_, context_);
    } else {
      weights_ = std::make_unique<kernels::ResidentWeights>(context_);
    }
  }

  void Step(bool updates = true) {
    context_.BeginStep(++step_, 0.1);
    if (!updates) context_.step_state().data<double>()[StepState::kUpdates] = 0;
    gradients_->BeginStep(1);
    for (Parameter& parameter : parameters_) {
      const GradientSlot slot = gradients_->Open(parameter);
      if (slot.tensor.device().is_meta()) continue;
      const Tensor from = Random("gradient", slot.tensor.shape());
      std::memcpy(slot.tensor.raw(), from.raw(), static_cast<size_t>(from.bytes()));
    }
    gradients_->Written();
    gradients_->Reduce();
    optimizer_->Step();
  }

  // Every image of every weight, as a micro-batch leases them.
  void Use() {
    for (Parameter& parameter : parameters_) {
      for (const auto& [format, dtype] : kImages) weights_->Lease(parameter, format, dtype);
    }
  }

  // What is leased is the image of the value.
  void ExpectImages() {
    for (Parameter& parameter : parameters_) {
      for (const auto& [format, dtype] : kImages) {
        const Tensor image = weights_->Lease(parameter, format, dtype);
        test::ExpectSameBits(image,
                             kernels::MakeWeightImage(parameter.value, format, dtype, context_));
      }
    }
  }

  test::OpCounts& counts() { return counts_; }
  std::vector<Parameter>& parameters() { return parameters_; }

 private:
  static constexpr std::pair<WeightFormat, DType> kImages[] = {
      {WeightFormat::kPlain, DType::kBF16},
      {WeightFormat::kPacked, DType::kBF16},
      {WeightFormat::kPackedTransposed, DType::kBF16},
      {WeightFormat::kPacked, DType::kF32}};

  Tensor Random(const char* name, const Shape& shape) {
    return context_.device().is_meta() ? context_.Empty(DType::kF32, shape, name)
                                       : test::RandomTensor(context_, DType::kF32, shape, name);
  }

  test::OpCounts counts_;
  Context context_;
  std::unique_ptr<Mesh> mesh_;
  std::vector<Parameter> parameters_;
  std::optional<GradientBuckets> gradients_;
  std::optional<ValueBuckets> values_;
  std::optional<AdamW> optimizer_;
  std::unique_ptr<WeightSource> weights_;
  int64_t step_ = 0;
};

TEST(AdamW, WritesTheImagesThatAreThere) {
  RunOnThreads(1, [](Communicator& world) {
    for (const Device device : {kCpu, kMeta}) {
      Model model(world, ZeroStage::kReplicated, device);
      model.Use();
      EXPECT_EQ(model.counts().Take()["pack_weight"], 8);
      for (int step = 0; step < 2; ++step) {
        model.Step();
        model.Use();
        EXPECT_EQ(model.counts().Take()["pack_weight"], 0);
        if (device == kCpu) model.ExpectImages();
        model.counts().Take();
      }
      for (Parameter& parameter : model.parameters()) ++parameter.version;  // as a checkpoint does
      model.Use();
      EXPECT_EQ(model.counts().Take()["pack_weight"], 8);
    }
  });
}

// An image is as current after such a step as it was before.
TEST(AdamW, LeavesImagesWhereTheStepUpdatesNothing) {
  RunOnThreads(1, [](Communicator& world) {
    Model model(world, ZeroStage::kReplicated);
    model.Use();
    model.Step(/*updates=*/false);
    model.ExpectImages();
    for (Parameter& parameter : model.parameters()) {  // as a checkpoint does
      std::memset(parameter.value.raw(), 0, static_cast<size_t>(parameter.value.bytes()));
      ++parameter.version;
    }
    model.Step(/*updates=*/false);
    model.ExpectImages();
  });
}

// Of a weight of which a rank updates a part no image is current, whatever was there.
TEST(AdamW, LeavesNoStaleImageWhereRanksShareTheUpdate) {
  RunOnThreads(3, [](Communicator& world) {
    for (const ZeroStage stage : {ZeroStage::kReplicated, ZeroStage::kOptimizer,
                                  ZeroStage::kGradients, ZeroStage::kParameters}) {
      SCOPED_TRACE(static_cast<int>(stage));
      Model model(world, stage);
      model.Use();
      for (int step = 0; step < 2; ++step) {
        model.Step();
        model.ExpectImages();
      }
    }
  });
}

}  // namespace
}  // namespace moebius
