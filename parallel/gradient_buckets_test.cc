#include "parallel/gradient_buckets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

Parameter Make(Context& context, const char* name, DType dtype, const Shape& shape,
               std::vector<Replication> replicated) {
  Parameter parameter;
  parameter.name = name;
  parameter.placement.replicated = std::move(replicated);
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
      buckets.BeginStep();
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

}  // namespace
}  // namespace moebius
