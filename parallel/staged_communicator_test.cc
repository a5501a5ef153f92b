#include "parallel/staged_communicator.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

using Numbers = std::vector<double>;
using test::FromValues;
using test::ToDoubles;

constexpr int kRanks = 3;

// Each rank with a device of its own.
void OnDevices(const std::function<void(Communicator& world, Context& context)>& body) {
  RunOnThreads(kRanks, [&](Communicator& world) {
    const Context::Options options = test::OnTestDevice(Context::Options());
    ASSERT_NE(options.accelerator, nullptr) << "this test is of a device";
    Context context(options);
    StagedCommunicator staged(world, options.accelerator);
    body(staged, context);
  });
}

Tensor F32(Context& context, const Numbers& values) {
  return FromValues(context, DType::kF32, {std::ssize(values)}, values);
}

TEST(StagedCommunicator, Reductions) {
  OnDevices([](Communicator& world, Context& context) {
    const double r = world.rank();
    const Tensor sum = F32(context, {r, 1, 10 * r}), most = F32(context, {r, -r});
    Handle first = world.AllReduce(sum), second = world.AllReduceMax(most);
    second.Wait();
    first.Wait();
    EXPECT_EQ(ToDoubles(sum), (Numbers{3, 3, 30}));
    EXPECT_EQ(ToDoubles(most), (Numbers{2, 0}));

    const Tensor all = FromValues(context, DType::kBF16, {3}, {r, 1, r + 1});
    const Tensor mine = context.Empty(DType::kF32, {1}, "mine");
    world.ReduceScatter(all, mine).Wait();
    EXPECT_EQ(ToDoubles(mine), (Numbers{Numbers{3, 3, 6}[world.rank()]}));
  });
}

TEST(StagedCommunicator, GathersAlsoInPlace) {
  OnDevices([](Communicator& world, Context& context) {
    const double r = world.rank();
    const Tensor mine = F32(context, {r, r + 0.5}), all = context.Empty(DType::kF32, {6}, "all");
    world.AllGather(mine, all).Wait();
    EXPECT_EQ(ToDoubles(all), (Numbers{0, 0.5, 1, 1.5, 2, 2.5}));
    const Tensor in_place = F32(context, Numbers(3, r));
    world.AllGather(in_place.Slice(world.rank(), world.rank() + 1), in_place).Wait();
    EXPECT_EQ(ToDoubles(in_place), (Numbers{0, 1, 2}));
    const Tensor from_last = F32(context, {r, r});
    world.Broadcast(from_last, kRanks - 1).Wait();
    EXPECT_EQ(ToDoubles(from_last), (Numbers{2, 2}));
  });
}

// Rank r sends r rows to each.
TEST(StagedCommunicator, ExchangesRows) {
  OnDevices([](Communicator& world, Context& context) {
    const int r = world.rank();
    const Tensor sent = F32(context, Numbers(static_cast<size_t>(2 * kRanks * r), r));
    const Tensor received = context.Empty(DType::kF32, {6}, "received");
    const std::vector<int32_t> to_each(kRanks, r), from_each = {0, 1, 2};
    world.AllToAllV({sent, to_each}, {received, from_each}, 2).Wait();
    EXPECT_EQ(ToDoubles(received), (Numbers{1, 1, 2, 2, 2, 2}));

    const Tensor own = F32(context, {double(r)}), other = context.Empty(DType::kF32, {1}, "other");
    Handle send = world.Send(own, (r + 1) % kRanks);
    world.Receive(other, (r + 2) % kRanks).Wait();
    send.Wait();
    EXPECT_EQ(ToDoubles(other), (Numbers{double((r + 2) % kRanks)}));
  });
}

TEST(StagedCommunicator, GroupsAndTheHostsNumbers) {
  OnDevices([](Communicator& world, Context& context) {
    const auto alone = world.Split({world.rank()}, "alone");
    const Tensor x = F32(context, {5});
    const int64_t waits = context.accelerator()->num_waits();
    alone->AllReduce(x).Wait();
    EXPECT_EQ(context.accelerator()->num_waits(), waits) << "a sum over one rank is there";
    EXPECT_EQ(ToDoubles(x), (Numbers{5}));

    double number = 1;
    world.AllReduce(std::span(&number, 1)).Wait();
    EXPECT_EQ(number, kRanks);
    world.Barrier().Wait();
  });
}

}  // namespace
}  // namespace moebius
