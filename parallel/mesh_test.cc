#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

TEST(PositionOf, FoldsTheRanksTwice) {
  const ParallelSizes sizes = {.tensor = 2, .pipeline = 2, .expert = 2};
  for (int rank = 0; rank < 16; ++rank) {
    const MeshPosition at = *PositionOf(sizes, rank, 16);
    EXPECT_EQ(at.size_of(Axis::kData), 4);
    EXPECT_EQ(at.size_of(Axis::kExpertData), 4);
    EXPECT_EQ(at.index_on(Axis::kPipeline), rank / 8);
    EXPECT_EQ(at.index_on(Axis::kData), rank % 8 / 2);
    EXPECT_EQ(at.index_on(Axis::kTensor), rank % 2);
    EXPECT_EQ(at.index_on(Axis::kExpertData), rank % 8 / 2);
    EXPECT_EQ(at.index_on(Axis::kExpert), rank % 2);
    EXPECT_EQ(at.index_on(Axis::kContext), 0);
  }
}

TEST(PositionOf, NamesTheSizeThatDoesNotDivide) {
  EXPECT_EQ(PositionOf({.expert = 3}, 0, 4).status().message(),
            "parallel.expert_size x parallel.expert_tensor_size: 3 does not divide the 4 ranks of "
            "a pipeline stage");
  EXPECT_EQ(PositionOf({.pipeline = 2}, 0, 3).status().message(),
            "parallel.pipeline_size: 2 does not divide the 3 ranks of this job");
  EXPECT_FALSE(PositionOf({.context = 8}, 0, 4).ok());
}

void ExpectMembers(Communicator& group, std::vector<int> members) {
  EXPECT_EQ(group.members(), members) << group.name();
}

TEST(Mesh, GroupsOfDataAndExpert) {
  RunOnThreads(4, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.expert = 2}, world);
    const int rank = world.rank(), pair = rank / 2 * 2;
    ExpectMembers(mesh->world(), {0, 1, 2, 3});
    ExpectMembers(mesh->group(Axis::kData), {0, 1, 2, 3});
    ExpectMembers(mesh->group(Axis::kExpert), {pair, pair + 1});
    ExpectMembers(mesh->group(Axis::kExpertData), {rank % 2, rank % 2 + 2});
    ExpectMembers(mesh->group(Axis::kTensor), {rank});
    ExpectMembers(mesh->group_over({}), {rank});
    ExpectMembers(mesh->group_over({Axis::kData, Axis::kContext}), {0, 1, 2, 3});
    ExpectMembers(mesh->group_over({Axis::kExpertData, Axis::kExpert}), {0, 1, 2, 3});
  });
}

TEST(Mesh, EveryAxisHasItsGroup) {
  RunOnThreads(8, [](Communicator& world) {
    const auto mesh = *Mesh::Create({.tensor = 2, .pipeline = 2, .expert = 4}, world);
    for (int axis = 0; axis < kNumAxes; ++axis) {
      Communicator& group = mesh->group(static_cast<Axis>(axis));
      EXPECT_EQ(group.size(), mesh->position().size[axis]);
      EXPECT_EQ(group.rank(), mesh->position().index[axis]);
    }
    const int stage = world.rank() / 4 * 4;
    ExpectMembers(mesh->group(Axis::kExpert), {stage, stage + 1, stage + 2, stage + 3});
    ExpectMembers(mesh->group(Axis::kPipeline), {world.rank() % 4, world.rank() % 4 + 4});
    ExpectMembers(mesh->group_over({Axis::kData, Axis::kTensor, Axis::kContext}),
                  {stage, stage + 1, stage + 2, stage + 3});
    std::vector<int64_t> one = {1};
    mesh->group(Axis::kExpert).AllReduce(std::span(one)).Wait();
    mesh->group(Axis::kPipeline).AllReduce(std::span(one)).Wait();
    EXPECT_EQ(one[0], 8);
  });
}

}  // namespace
}  // namespace moebius
