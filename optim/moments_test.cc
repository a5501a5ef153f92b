// The moments of AdamW in the host tier beside those in the device tier.
#include "optim/moments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/copy.h"
#include "optim/adamw.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

constexpr Moments::Options kDevice;
// 704 bytes of each moment, so that pieces cut weights and hold several, too.
constexpr Moments::Options kHost = {.tier = MemoryTier::kHost, .piece_bytes = 1500};
constexpr int64_t kPiece = 2 * 704;

class OpCounts final : public WorkObserver {
 public:
  void OpBegins(const Work& work) override { ++counts_[work.op]; }
  int of(const std::string& op) { return counts_[op]; }

 private:
  std::map<std::string, int> counts_;
};

using Bytes = std::vector<std::byte>;

// One rank's weights, replicated over all, in two buckets. F64 is the CPU's.
class Model {
 public:
  Model(Communicator& world, ZeroStage stage, DType dtype, const Moments::Options& moments,
        Context::Options resources = {})
      : context_(On(dtype, &counts_, resources)),
        mesh_(*Mesh::Create({}, world, On(dtype, nullptr, resources).accelerator)) {
    std::vector<Parameter*> all;
    for (const auto& [name, shape] :
         {std::pair{"large", Shape{3, 40, 32}}, {"gain", {5}}, {"small", {33, 7}}}) {
      Parameter& parameter = parameters_.emplace_back();
      parameter.name = name;
      parameter.placement = {shape, {}, {{Axis::kData, GradientArrives::kPartial}}};
      parameter.value = Random(dtype, shape, name);
      all.push_back(&parameter);
    }
    gradients_.emplace(all, *mesh_, context_, BucketOptions{.stage = stage, .max_bytes = 4096});
    values_.emplace(gradients_->buckets(), stage, context_);
    optimizer_.emplace(AdamWSpec{}, *gradients_, *values_, context_, moments);
  }

  void Step(bool updates) {
    context_.BeginStep(++step_, 0.1);
    gradients_->BeginStep(1);
    for (Parameter& parameter : parameters_) {
      const GradientSlot slot = gradients_->Open(parameter);
      Copy(Random(slot.tensor.dtype(), slot.tensor.shape(), std::to_string(step_)), slot.tensor);
    }
    gradients_->Written();
    gradients_->Reduce();
    if (!updates) Skip();
    // Memory given back, which its last work has still to write.
    context_.Zeros(DType::kF32, {3 * kPiece}, "before");
    optimizer_->Step();
    context_.Zeros(DType::kF32, {3 * kPiece}, "behind");
  }

  // All that this rank has of weights and moments.
  std::vector<Bytes> State() {
    context_.Wait();
    std::vector<Bytes> state;
    for (const AdamW::State& own : optimizer_->states()) {
      for (const Tensor& x : {own.value, own.m, own.v}) state.push_back(test::ToBytes(x));
    }
    if (values_->are_sharded()) return state;
    for (const Parameter& parameter : parameters_) state.push_back(test::ToBytes(parameter.value));
    return state;
  }

  Context& context() { return context_; }
  OpCounts& counts() { return counts_; }
  std::optional<AdamW>& optimizer() { return optimizer_; }

 private:
  // The accelerator is opened once.
  Context::Options On(DType dtype, WorkObserver* observer, Context::Options resources) {
    resources.observer = observer;
    if (dtype == DType::kF64) return resources;
    if (!resources_) resources_ = test::OnTestDevice(resources);
    resources_->observer = observer;
    return *resources_;
  }

  Tensor Random(DType dtype, const Shape& shape, const std::string& name) {
    return context_.device().is_meta() ? context_.Empty(dtype, shape, "test")
                                       : test::RandomTensor(context_, dtype, shape, name);
  }

  void Skip() {
    const auto number = [&](double x) { return test::FromValues(context_, DType::kF64, {1}, {x}); };
    kernels::DecideUpdate(
        {.loss = number(std::nan("")), .squares = number(1), .state = context_.step_state()},
        context_);
  }

  OpCounts counts_;
  std::optional<Context::Options> resources_;
  Context context_;
  std::unique_ptr<Mesh> mesh_;
  std::deque<Parameter> parameters_;
  std::optional<GradientBuckets> gradients_;
  std::optional<ValueBuckets> values_;
  std::optional<AdamW> optimizer_;
  int64_t step_ = 0;
};

// After three updates, and one that was skipped.
std::vector<Bytes> Train(Communicator& world, ZeroStage stage, DType dtype,
                         const Moments::Options& moments) {
  Model model(world, stage, dtype, moments);
  for (const bool updates : {true, false, true, true}) model.Step(updates);
  return model.State();
}

void ExpectSameBitsInBothTiers() {
  for (const int ranks : {1, 3}) {
    RunOnThreads(ranks, [](Communicator& world) {
      for (const ZeroStage stage : {ZeroStage::kReplicated, ZeroStage::kOptimizer,
                                    ZeroStage::kGradients, ZeroStage::kParameters}) {
        for (const DType dtype : {DType::kF32, DType::kF64}) {
          SCOPED_TRACE(std::string(NameOf(dtype)) + ", ZeRO " +
                       std::to_string(static_cast<int>(stage)));
          EXPECT_TRUE(Train(world, stage, dtype, kHost) == Train(world, stage, dtype, kDevice));
        }
      }
    });
  }
}

// Where streams run as late as events allow, a wait of the device for a copy cannot be missing.
TEST(Moments, HaveTheSameBitsInBothTiers) { ExpectSameBitsInBothTiers(); }

// Nor a wait of a copy for the device, where they run early.
TEST(Moments, HaveTheSameBitsWhereCopiesAreEarly) {
  setenv("MOEBIUS_EMULATED_SIDE_STREAMS", "early", /*replace=*/1);
  ExpectSameBitsInBothTiers();
  unsetenv("MOEBIUS_EMULATED_SIDE_STREAMS");
}

// A skipped update leaves them as they are.
TEST(Moments, StayWhereNothingIsUpdated) {
  RunOnThreads(1, [](Communicator& world) {
    for (const Moments::Options& moments : {kDevice, kHost}) {
      Model model(world, ZeroStage::kReplicated, DType::kF32, moments);
      model.Step(true);
      const std::vector<Bytes> before = model.State();
      model.Step(false);
      EXPECT_TRUE(model.State() == before);
    }
  });
}

TEST(Moments, OutliveTheOptimizerUntilTheyAreBack) {
  RunOnThreads(1, [](Communicator& world) {
    std::vector<Bytes> m;
    for (const Moments::Options& moments : {kDevice, kHost}) {
      Model model(world, ZeroStage::kReplicated, DType::kF32, moments);
      model.Step(true);
      const Tensor first = model.optimizer()->states().front().m;
      model.optimizer().reset();
      model.context().Wait();
      m.push_back(test::ToBytes(first));
    }
    EXPECT_TRUE(m[0] == m[1]);
  });
}

int64_t MomentBytes(Model& model) {
  int64_t bytes = 0;
  for (const AdamW::State& state : model.optimizer()->states()) {
    bytes += state.m.bytes() + state.v.bytes();
  }
  return bytes;
}

// In three pieces at a time where they come and go, and in none where they are updated in place.
TEST(Moments, OfTheHostLeaveTheMemoryOfTheDevice) {
  RunOnThreads(1, [](Communicator& world) {
    Model beside(world, ZeroStage::kReplicated, DType::kF32, kDevice);
    Model model(world, ZeroStage::kReplicated, DType::kF32, kHost);
    beside.Step(true);
    model.Step(true);
    const bool on_cpu = model.context().accelerator() == nullptr;
    EXPECT_EQ(model.optimizer()->uses_side_streams(), !on_cpu);
    EXPECT_FALSE(beside.optimizer()->uses_side_streams());

    Arena& device = model.context().arena();
    auto uses = device.by_name();
    EXPECT_FALSE(uses.contains("optimizer.m"));
    EXPECT_FALSE(uses.contains("optimizer.v"));
    const int64_t pieces = uses["optimizer.pieces"].peak_bytes;
    EXPECT_EQ(pieces, on_cpu ? 0 : 3 * kPiece);
    EXPECT_EQ(uses["optimizer.pieces"].bytes, 0);
    EXPECT_EQ(beside.context().arena().total().bytes - device.total().bytes,
              beside.context().arena().by_name()["optimizer.m"].bytes * 2);
    EXPECT_LE(device.total().peak_bytes,
              beside.context().arena().total().peak_bytes - MomentBytes(beside) + pieces);

    auto host = model.context().arena(MemoryTier::kHost).by_name();
    EXPECT_GE(host["optimizer.m"].bytes + host["optimizer.v"].bytes, MomentBytes(model));
    // 15,360 and 1,024 bytes, of each.
    EXPECT_EQ(model.counts().of("adamw.moments"), on_cpu ? 0 : 22 + 2);
  });
}

// As they do on a device that is planned for, whose memory is not the host's.
TEST(Moments, ComeInPiecesOnMeta) {
  RunOnThreads(1, [](Communicator& world) {
    for (const bool reads_host_tier : {true, false}) {
      Model model(world, ZeroStage::kReplicated, DType::kF32, kHost,
                  {.device = kMeta, .reads_host_tier = reads_host_tier});
      model.Step(true);
      EXPECT_EQ(model.context().arena().by_name()["optimizer.pieces"].peak_bytes,
                reads_host_tier ? 0 : 3 * kPiece);
      EXPECT_EQ(model.counts().of("adamw.moments"), reads_host_tier ? 0 : 22 + 2);
      EXPECT_FALSE(model.optimizer()->uses_side_streams());
    }
  });
}

TEST(MomentsDeathTest, OfTheHostKeepToItsBudget) {
  const auto make = [](int64_t host_budget) {
    RunOnThreads(1, [&](Communicator& world) {
      Model(world, ZeroStage::kReplicated, DType::kF32, kHost, {.host_budget_bytes = host_budget});
    });
    std::exit(0);
  };
  const int64_t needed = 2 * (15360 + 1024);
  EXPECT_EXIT(make(needed - 1), testing::ExitedWithCode(1),
              "host memory: optimizer.v needs 15360 bytes, but 17408 of the budget of 32767 are in "
              "use");
  EXPECT_EXIT(make(needed), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace moebius
