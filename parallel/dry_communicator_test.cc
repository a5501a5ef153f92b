#include "parallel/dry_communicator.h"

#include <gtest/gtest.h>

#include "core/tensor/context.h"
#include "parallel/mesh.h"

namespace moebius {
namespace {

struct Log : CallObserver {
  int64_t Started(const Call& call, const std::vector<int>& members) override {
    calls.push_back(call);
    groups.push_back(members);
    return std::ssize(calls) - 1;
  }
  void Waited(int64_t call) override { waited.push_back(call); }

  std::vector<Call> calls;
  std::vector<std::vector<int>> groups;
  std::vector<int64_t> waited;
};

TEST(DryCommunicator, TellsCallsAndKeepsNumbers) {
  Arena arena("messages", kMeta);
  Log log;
  DryCommunicator world(1, 4, {.messages = arena, .observer = &log});
  std::vector<double> x = {3, 5};
  Handle sum = world.AllReduce(std::span(x));
  EXPECT_GE(arena.total().bytes, 16);  // as much as the ranks' parts of its piece
  EXPECT_TRUE(log.waited.empty());
  Context context({.device = kMeta});
  const Tensor mine = context.Empty(DType::kF32, {10}, "test");
  const Tensor all = context.Empty(DType::kF32, {40}, "test");
  world.AllGather(mine, all).Wait();
  sum.Wait();
  sum = Handle();
  EXPECT_EQ(arena.total().bytes, 0);
  EXPECT_EQ(x, (std::vector<double>{3, 5}));

  ASSERT_EQ(log.calls.size(), 2U);
  EXPECT_EQ(log.calls[0].collective, Collective::kAllReduce);
  EXPECT_EQ(log.calls[0].bytes, 16);
  EXPECT_EQ(log.calls[1].collective, Collective::kAllGather);
  EXPECT_EQ(log.calls[1].bytes, 40);
  EXPECT_EQ(log.groups[1], (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(log.waited, (std::vector<int64_t>{1, 0}));
}

// The groups of a mesh are those that the ranks would make together.
TEST(DryCommunicator, MeshNamesTheRanksOfItsGroups) {
  Arena arena("messages", kMeta);
  DryCommunicator world(5, 8, {.messages = arena});
  const auto mesh = *Mesh::Create({.tensor = 2, .pipeline = 2, .expert = 4}, world);
  EXPECT_EQ(mesh->group(Axis::kPipeline).members(), (std::vector{1, 5}));
  EXPECT_EQ(mesh->group(Axis::kPipeline).rank(), 1);
  EXPECT_EQ(mesh->group(Axis::kTensor).members(), (std::vector{4, 5}));
  EXPECT_EQ(mesh->group(Axis::kData).members(), (std::vector{5, 7}));
  EXPECT_EQ(mesh->group(Axis::kExpert).members(), (std::vector{4, 5, 6, 7}));
  EXPECT_EQ(mesh->group(Axis::kContext).members(), (std::vector{5}));
}

}  // namespace
}  // namespace moebius
