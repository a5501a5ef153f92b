// The communicator of devices on GPUs that the CPU plays, over a fake NCCL
// (kernels/cuda/emulation/fake_nccl.cc).
#include "parallel/device_communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "core/tensor/copy.h"
#include "kernels/open_cuda.h"
#include "parallel/collective_checks.h"
#include "parallel/ops/bounded_exchange.h"
#include "parallel/ops/exchange.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;

constexpr char kPlugin[] = "kernels/cuda/libmoebius_cuda_emulated.so";
constexpr char kFakeNccl[] = "kernels/cuda/emulation/libnccl_fake.so";

// A rank with a device of its own.
struct Rank {
  explicit Rank(Communicator& world)
      : accelerator(*OpenCuda(kPlugin, 0)),
        context({.device = {DeviceKind::kCuda, 0}, .accelerator = accelerator}),
        communicator(world, accelerator, *OpenDeviceCollectives(kPlugin, accelerator, kFakeNccl)) {}

  Tensor OnDevice(std::span<const float> values) {
    const Tensor here = EmptyOnHost(DType::kF32, {std::ssize(values)}, "test", context);
    std::ranges::copy(values, here.data<float>());
    return ToDevice(here, "test", context);
  }
  std::vector<float> OnHost(const Tensor& x) {
    const Tensor here = ToHost(x, context);
    return {here.data<float>(), here.data<float>() + here.size()};
  }

  std::shared_ptr<Accelerator> accelerator;
  Context context;
  DeviceCommunicator communicator;
};

// Elements of the host, sent by way of the device's memory: so what is checked of a communicator
// on the host's is checked on the device's.
class ByDevice final : public Communicator {
 public:
  ByDevice(Communicator& device, Context& context) : device_(device), context_(context) {}

  const std::string& name() const override { return device_.name(); }
  int rank() const override { return device_.rank(); }
  const std::vector<int>& members() const override { return device_.members(); }

  Handle AllReduce(Elements x) override {
    const Twin there = Given(x);
    return Start(device_.AllReduce(there.tensor), {there});
  }
  Handle AllReduceMax(Elements x) override {
    const Twin there = Given(x);
    return Start(device_.AllReduceMax(there.tensor), {there});
  }
  Handle AllGather(Elements mine, Elements all) override {
    const Twin own = Given(mine), whole = Given(all);
    return Start(device_.AllGather(own.tensor, whole.tensor), {whole, own});
  }
  Handle ReduceScatter(Elements all, Elements mine) override {
    const Twin whole = Given(all), own = Given(mine);
    return Start(device_.ReduceScatter(whole.tensor, own.tensor), {own, whole});
  }
  Handle AllToAllV(const RowsByRank& send, const RowsByRank& receive, int64_t row_size) override {
    const Twin out = Given(send.rows), in = Given(receive.rows);
    return Start(
        device_.AllToAllV({out.tensor, send.counts}, {in.tensor, receive.counts}, row_size),
        {in, out});
  }
  Handle Broadcast(Elements x, int root) override {
    const Twin there = Given(x);
    return Start(device_.Broadcast(there.tensor, root), {there});
  }
  Handle Barrier() override { return device_.Barrier(); }
  Handle Send(Elements x, int to) override {
    const Twin there = Given(x);
    return Start(device_.Send(there.tensor, to), {there});
  }
  Handle Receive(Elements x, int from) override {
    const Twin there = Given(x);
    return Start(device_.Receive(there.tensor, from), {there});
  }
  std::unique_ptr<Communicator> Split(const std::vector<int>& ranks,
                                      const std::string& name) override {
    auto part = device_.Split(ranks, name);
    auto group = std::make_unique<ByDevice>(*part, context_);
    group->owned_ = std::move(part);
    return group;
  }

 private:
  struct Twin {
    Elements here;
    Tensor tensor;  // on the device
  };

  class ThereAndBack final : public Operation {
   public:
    ThereAndBack(Handle device, std::vector<Twin> twins, Context& context)
        : device_(std::move(device)), twins_(std::move(twins)), context_(context) {}
    bool Poll() override { return device_.Poll(); }
    void Wait() override {
      device_.Wait();
      const Elements& here = twins_[0].here;
      const Tensor back = ToHost(twins_[0].tensor, context_);
      if (here.count > 0) std::memcpy(here.data, back.raw(), here.bytes().size());
    }

   private:
    Handle device_;
    const std::vector<Twin> twins_;  // the first is changed
    Context& context_;
  };

  Twin Given(const Elements& x) {
    const Tensor here = EmptyOnHost(x.dtype, {x.count}, "test", context_);
    if (x.count > 0) std::memcpy(here.raw(), x.data, x.bytes().size());
    return {x, ToDevice(here, "test", context_)};
  }
  Handle Start(Handle device, std::vector<Twin> twins) {
    return Handle(std::make_shared<ThereAndBack>(std::move(device), std::move(twins), context_));
  }

  Communicator& device_;
  Context& context_;
  std::unique_ptr<Communicator> owned_;
};

class DeviceRanks : public testing::TestWithParam<int> {
 protected:
  static void Run(void (*check)(Communicator&)) {
    RunOnThreads(GetParam(), [&](Communicator& world) {
      Rank rank(world);
      ByDevice by_device(rank.communicator, rank.context);
      check(by_device);
      check(rank.communicator);  // the host's elements still are the host's
    });
  }
};

TEST_P(DeviceRanks, Reductions) { Run(CheckReductions); }
TEST_P(DeviceRanks, LongReductions) { Run(CheckLongReductions); }
TEST_P(DeviceRanks, Gathers) { Run(CheckGathers); }
TEST_P(DeviceRanks, AllToAllV) { Run(CheckAllToAllV); }
TEST_P(DeviceRanks, PointToPoint) { Run(CheckPointToPoint); }
TEST_P(DeviceRanks, Splits) { Run(CheckSplits); }
TEST_P(DeviceRanks, ManyUnderWay) { Run(CheckManyUnderWay); }
INSTANTIATE_TEST_SUITE_P(Sizes, DeviceRanks, testing::Values(1, 2, 3, 4));

// Sums that go in several pieces, the last one short.
TEST(DeviceCommunicator, SumsMoreThanItsScratchHolds) {
  RunOnThreads(2, [](Communicator& world) {
    Rank rank(world);
    std::vector<float> x(10'000'001);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1000 + world.rank());
    const Tensor there = rank.OnDevice(x);
    rank.communicator.AllReduce(there).Wait();
    const std::vector<float> sum = rank.OnHost(there);
    int64_t num_wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) num_wrong += sum[i] != 2.0f * (i % 1000) + 1;
    EXPECT_EQ(num_wrong, 0);
  });
}

// Kernels before an exchange, the exchange, and kernels behind it: the host waits for none.
TEST(DeviceCommunicator, TheHostWaitsForNothing) {
  RunOnThreads(2, [](Communicator& world) {
    Rank rank(world);
    const Tensor x = rank.OnDevice(std::vector<float>(8, 1));
    rank.communicator.AllReduce(x).Wait();  // the group's first: it is waited for
    const int64_t waits = rank.accelerator->num_waits();
    Handle all_reduce;
    for (int i = 0; i < 4; ++i) {
      all_reduce = rank.communicator.AllReduce(x);
      all_reduce.Wait();
    }
    EXPECT_EQ(rank.accelerator->num_waits(), waits);
    EXPECT_EQ(rank.OnHost(x), std::vector<float>(8, 32));
    EXPECT_EQ(rank.accelerator->num_waits(), waits + 1);
  });
}

// Memory that was given back at Wait is handed out at once, written, and sent by another group.
TEST(DeviceCommunicator, MemoryMayBeUsedAgainAfterWait) {
  RunOnThreads(2, [](Communicator& world) {
    Rank rank(world);
    const auto other = rank.communicator.Split({0, 1}, "other");
    std::vector<Tensor> sums;
    for (int i = 0; i < 6; ++i) {
      const Tensor mine = rank.OnDevice(std::vector<float>(100, static_cast<float>(i)));
      const Tensor all = rank.context.Empty(DType::kF32, {200}, "test");
      Communicator& group = i % 2 == 0 ? rank.communicator : *other;
      group.AllGather(mine, all).Wait();
      sums.push_back(rank.context.Empty(DType::kF32, {200}, "test"));
      Copy(all, sums.back());
    }
    for (int i = 0; i < 6; ++i) {
      EXPECT_EQ(rank.OnHost(sums[i]), std::vector<float>(200, static_cast<float>(i)));
    }
  });
}

class NoWeights final : public WeightSource {
 public:
  Tensor Lease(Parameter& parameter, WeightFormat, DType) override { return parameter.value; }
};

// Rows to the ranks of their experts and back. `make` agrees on an exchange of 6 rows by their
// offsets: 3 for expert 0, 1 for expert 2, 2 for expert 3.
template <class Make>
void CheckDispatch(Communicator& world, int num_waits, const Shape& local_shape, const Make& make) {
  Rank rank(world);
  const Tensor first = rank.OnDevice(std::vector<float>(4));
  rank.communicator.AllReduce(first).Wait();

  const Tensor offsets = EmptyOnHost(DType::kI32, {5}, "test", rank.context);
  std::ranges::copy(std::vector{0, 3, 3, 4, 6}, offsets.data<int32_t>());
  std::vector<float> values(12);
  std::iota(values.begin(), values.end(), static_cast<float>(100 * world.rank()));
  const Tensor x = rank.OnDevice(values).Reshape({6, 2});
  const Tensor offsets_there = ToDevice(offsets, "test", rank.context);
  const int64_t waits = rank.accelerator->num_waits();

  NoWeights weights;
  Tape tape(rank.context, weights);
  const auto exchange = make(offsets_there, rank);
  EXPECT_EQ(rank.accelerator->num_waits(), waits + num_waits);
  const Var local = ToExperts(tape, tape.Input(x), exchange, &rank.communicator).Wait(tape);
  const Var back = FromExperts(tape, local, exchange, &rank.communicator).Wait(tape);
  EXPECT_EQ(rank.accelerator->num_waits(), waits + num_waits);
  EXPECT_EQ(local.shape(), local_shape);
  EXPECT_EQ(rank.OnHost(back.value()), values);
}

// The host reads how many there are, and goes on.
TEST(DeviceCommunicator, ADispatchWaitsOnceForItsCounts) {
  RunOnThreads(2, [](Communicator& world) {
    CheckDispatch(world, /*num_waits=*/1, {world.rank() == 0 ? 10 : 2, 2},
                  [](const Tensor& offsets, Rank& rank) {
                    const std::vector<int> owner = {0, 1, 1, 0};
                    return MakeExchange(offsets, owner, 1, rank.communicator, rank.context);
                  });
  });
}

TEST(DeviceCommunicator, ABoundedDispatchWaitsForNothing) {
  RunOnThreads(2, [](Communicator& world) {
    CheckDispatch(world, /*num_waits=*/0, {2 * 5, 2}, [](const Tensor& offsets, Rank& rank) {
      const std::vector<int> owner = {0, 0, 1, 1};
      const Tensor overflow = rank.context.Zeros(DType::kF64, {1}, "test");
      return MakeBoundedExchange(offsets, 6, owner, 1, {5, overflow}, rank.communicator,
                                 rank.context);
    });
  });
}

void RunWithDeadline(milliseconds deadline, const std::function<void(Rank& rank)>& body) {
  RunOnThreads(2, {.deadline = deadline}, [&](Communicator& world) {
    Rank rank(world);
    body(rank);
  });
}

class Failure : public testing::Test {
 protected:
  Failure() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};
using FailureDeathTest = Failure;

TEST_F(FailureDeathTest, NamesTheRankThatNeverJoins) {
  const auto run = [](Rank& rank) {
    const Tensor x = rank.OnDevice(std::vector<float>(5));
    if (rank.communicator.rank() == 0) rank.communicator.AllReduce(x).Wait();
    std::this_thread::sleep_for(std::chrono::minutes(1));
  };
  EXPECT_EXIT(RunWithDeadline(milliseconds(300), run), testing::ExitedWithCode(1),
              "group world, all-reduce 2 \\(5 F32\\): rank 0 waits for rank 1; rank 1 has started "
              "nothing; the deadline is 0.3 s");
}

// The host has long gone on, and finds it where it reads the device's memory.
TEST_F(FailureDeathTest, NamesTheRankThatNeverComesWhereTheHostWaitsForTheDevice) {
  const auto run = [](Rank& rank) {
    const Tensor x = rank.OnDevice(std::vector<float>(5));
    rank.communicator.AllReduce(x).Wait();
    if (rank.communicator.rank() == 0) {
      rank.communicator.AllReduce(x).Wait();
      rank.OnHost(x);
    }
    std::this_thread::sleep_for(std::chrono::minutes(1));
  };
  EXPECT_EXIT(RunWithDeadline(milliseconds(300), run), testing::ExitedWithCode(1),
              "fake NCCL: rank 0 aborts\nmoebius: group world, all-reduce 3 \\(5 F32\\): rank 0 "
              "waits for rank 1; rank 1 last started "
              "all-reduce 2 \\(5 F32\\) of group world; the deadline is 0.3 s");
}

TEST_F(FailureDeathTest, NamesWhoCallsSomethingElse) {
  const auto run = [](Rank& rank) {
    const Tensor x = rank.OnDevice(std::vector<float>(5));
    if (rank.communicator.rank() == 0) {
      rank.communicator.AllReduce(x).Wait();
    } else {
      rank.communicator.Broadcast(x, 0).Wait();
    }
    rank.OnHost(x);
  };
  EXPECT_EXIT(RunWithDeadline(std::chrono::minutes(1), run), testing::ExitedWithCode(1),
              "all ranks of a group must call the same operations in one order");
}

TEST_F(FailureDeathTest, TellsAnErrorOnTheWayInNcclsWords) {
  const auto run = [](Rank& rank) {
    const int me = rank.communicator.rank();
    const Tensor x = rank.OnDevice(std::vector<float>(4)), y = rank.OnDevice(std::vector<float>(4));
    const std::vector<int32_t> to = {2, 2}, from = {me == 0 ? 2 : 1, 2};
    rank.communicator.AllToAllV({x, to}, {y, from}, 1).Wait();
    rank.OnHost(y);
    std::this_thread::sleep_for(std::chrono::minutes(1));
  };
  EXPECT_EXIT(RunWithDeadline(std::chrono::minutes(1), run), testing::ExitedWithCode(1),
              "group world, all-to-all 2 \\(1 F32 a row\\): rank 1: NCCL: an exchange under way: "
              "invalid usage");
}

TEST_F(FailureDeathTest, TellsTheErrorOfACallInNcclsWords) {
  const auto run = [](Rank& rank) {
    const Tensor x = rank.OnDevice(std::vector<float>(4));
    Elements beyond(x);
    beyond.count = int64_t{1} << 40;
    rank.communicator.Broadcast(beyond, 0).Wait();
  };
  EXPECT_EXIT(RunWithDeadline(std::chrono::minutes(1), run), testing::ExitedWithCode(1),
              "NCCL: ncclBroadcast: invalid argument \\(not memory of the device\\)");
}

TEST(OpenDeviceCollectives, SaysWhyALibraryCannotBeUsed) {
  const auto accelerator = *OpenCuda(kPlugin, 0);
  const auto none = OpenDeviceCollectives(kPlugin, accelerator, "libnccl_of_nobody.so.2");
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.status().message().find("libnccl_of_nobody.so.2"), std::string::npos);
  const auto other = OpenDeviceCollectives(kPlugin, accelerator, kPlugin);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.status().message().find("is not NCCL"), std::string::npos);
}

}  // namespace
}  // namespace moebius
