#include "parallel/ops/bounded_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "kernels/ops/swiglu.h"
#include "parallel/dry_communicator.h"
#include "parallel/ops/exchange.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

constexpr int kNumExperts = 6;
constexpr int64_t kWidth = 4;

// How many rows rank `rank` has for expert `expert`.
using Routing = int (*)(int rank, int expert);
int Random(int rank, int expert) {
  return static_cast<int>(RandomStream(3, "counts").Below(rank * 100 + expert, 4));
}
int AllToOne(int rank, int expert) { return expert == 4 ? 7 + rank : 0; }
int AsMany(int rank, int expert) { return (rank + expert) % 3; }  // as many on every rank
int None(int, int) { return 0; }
int OneRankOnly(int rank, int) { return rank == 0 ? 3 : 0; }

struct Case {
  const char* name;
  Routing routing;
  std::vector<int> owner;
  int num_ranks, copies, capacity;
};

// The rows of a rank, grouped by expert.
struct Rows {
  Rows(Context& context, Routing routing, int rank)
      : offsets(context.Zeros(DType::kI32, {kNumExperts + 1}, "test")) {
    int32_t* const at = offsets.data<int32_t>();
    for (int j = 0; j < kNumExperts; ++j) at[j + 1] = at[j] + routing(rank, j);
  }
  int64_t count() const { return offsets.data<int32_t>()[kNumExperts]; }

  Tensor offsets;
};

// What came of rows, there and back, and of gradients.
struct Outcome {
  std::vector<int32_t> local_offsets;
  Tensor local, back, gradient;
};

Outcome ThereAndBack(const Case& c, DType dtype, bool bounded, Communicator& world,
                     Context& context) {
  const Rows rows(context, c.routing, world.rank());
  const std::string rank = std::to_string(world.rank());
  test::ValueWeights weights;
  Tape tape(context, weights);
  const Var x = tape.Input(test::RandomTensor(context, dtype, {rows.count(), kWidth}, "x" + rank));
  const Tensor seed = test::RandomTensor(context, dtype, {rows.count(), kWidth}, "seed" + rank);
  Outcome outcome;
  const auto run = [&](const auto& exchange) {
    const auto offsets = exchange.local_offsets.template span<int32_t>();
    outcome.local_offsets = {offsets.begin(), offsets.end()};
    const Var local = ToExperts(tape, x, exchange, &world).Wait(tape);
    const Var back = FromExperts(tape, local, exchange, &world).Wait(tape);
    outcome.local = local.value().Slice(0, offsets.back());
    outcome.back = back.value();
    const Tape::Seed seeds[] = {{back.id(), seed}};
    tape.Backward(seeds);
  };
  if (bounded) {
    const Tensor overflow = context.Zeros(DType::kF64, {1}, "test");
    run(MakeBoundedExchange(rows.offsets, rows.count(), c.owner, c.copies, {c.capacity, overflow},
                            world, context));
    EXPECT_EQ(overflow.data<double>()[0], 0);
  } else {
    run(MakeExchange(rows.offsets, c.owner, c.copies, world, context));
  }
  outcome.gradient = tape.LeafGradient(x.id());
  for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
  return outcome;
}

TEST(BoundedExchange, HasTheBitsOfTheExactOne) {
  const std::vector<Case> cases = {
      {"random", Random, {0, 0, 0, 1, 1, 1}, 2, 1, 9},
      {"just enough", AllToOne, {0, 0, 0, 1, 1, 1}, 2, 1, 8},
      {"none", None, {0, 0, 0, 1, 1, 1}, 2, 1, 3},
      {"none, no room", None, {0, 0, 0, 1, 1, 1}, 2, 1, 0},
      {"uneven owners", Random, {0, 1, 1, 1, 1, 2}, 3, 1, 12},
      {"a rank without experts", Random, {0, 0, 0, 2, 2, 2}, 3, 1, 9},
      {"all to one of three", AllToOne, {0, 0, 1, 1, 2, 2}, 3, 1, 20},
      {"random of four", Random, {0, 0, 1, 1, 2, 3}, 4, 1, 6},
      {"ranks without rows", OneRankOnly, {0, 0, 1, 1, 2, 3}, 4, 1, 6},
      {"copies alone", Random, {0, 0, 0, 0, 0, 0}, 2, 2, 18},
      {"copies", Random, {0, 0, 0, 1, 1, 1}, 4, 2, 9},
      {"copies, all to one", AllToOne, {0, 0, 0, 0, 1, 1}, 4, 2, 10},
      {"four copies, none", None, {0, 0, 0, 0, 0, 0}, 4, 4, 1},
      {"four copies", Random, {0, 0, 0, 0, 0, 0}, 4, 4, 18},
  };
  for (const Case& c : cases) {
    RunOnThreads(c.num_ranks, [&](Communicator& world) {
      Context context;
      for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(testing::Message() << c.name << ", " << NameOf(dtype));
        const Outcome exact = ThereAndBack(c, dtype, false, world, context);
        const Outcome bounded = ThereAndBack(c, dtype, true, world, context);
        EXPECT_EQ(bounded.local_offsets, exact.local_offsets);
        test::ExpectSameBits(bounded.local, exact.local);
        test::ExpectSameBits(bounded.back, exact.back);
        test::ExpectSameBits(bounded.gradient, exact.gradient);
      }
    });
  }
}

TEST(BoundedExchange, RaisesTheFlagOfTheRankThatLacksRoom) {
  constexpr int kRanks = 3;
  for (const int capacity : {6, 7, 8, 9}) {  // AllToOne has 7 rows on rank 0, 8 and 9 on the others
    RunOnThreads(kRanks, [&](Communicator& world) {
      Context context;
      const Rows rows(context, AllToOne, world.rank());
      const Tensor overflow = context.Zeros(DType::kF64, {1}, "test");
      const std::vector<int> owner = {0, 0, 1, 1, 2, 2};
      const BoundedExchange exchange = MakeBoundedExchange(rows.offsets, rows.count(), owner, 1,
                                                           {capacity, overflow}, world, context);
      EXPECT_EQ(overflow.data<double>()[0], rows.count() > capacity ? 1 : 0);
      // The others arrive.
      const int arrived = std::min(7, capacity) + std::min(8, capacity) + std::min(9, capacity);
      EXPECT_EQ(exchange.local_offsets.span<int32_t>().back(), world.rank() == 2 ? arrived : 0);
    });
  }
}

// There, through experts that read as many rows as there are, and back.
TEST(BoundedExchange, GradientsAreThoseOfDifferences) {
  constexpr int kRanks = 2, kLocal = kNumExperts / kRanks;
  constexpr int64_t kHidden = 3;
  RunOnThreads(kRanks, [&](Communicator& world) {
    Context context;
    const Rows mine(context, AsMany, world.rank());
    const std::vector<int> owner = {0, 0, 0, 1, 1, 1};
    const auto parameter = [&](const Shape& shape, const char* name) {
      return test::MakeParameter(context, test::RandomTensor(context, DType::kF64, shape, name));
    };
    Parameter gate = parameter({kLocal, kHidden, kWidth}, "gate");
    Parameter up = parameter({kLocal, kHidden, kWidth}, "up");
    Parameter down = parameter({kLocal, kWidth, kHidden}, "down");
    test::CheckGradients(
        context,
        [&](Tape& tape, const std::vector<Var>& inputs) {
          const BoundedExchange exchange = tape.Once([&] {
            return MakeBoundedExchange(mine.offsets, mine.count(), owner, 1,
                                       {mine.count(), context.Zeros(DType::kF64, {1}, "test")},
                                       world, tape.context());
          });
          const Var local = ToExperts(tape, inputs[0], exchange, &world).Wait(tape);
          const Tensor& offsets = exchange.local_offsets;
          const Var made = ops::Down(
              tape, ops::GateAndUp(tape, local, {.offsets = offsets}, &gate, &up), offsets, &down);
          return test::Outputs{.values = {FromExperts(tape, made, exchange, &world).Wait(tape)}};
        },
        {test::RandomTensor(context, DType::kF64, {mine.count(), kWidth}, "x")},
        {&gate, &up, &down}, {.size = world.size(), .rank = world.rank(), .sum = [&](double x) {
                                world.AllReduce(std::span(&x, 1)).Wait();
                                return x;
                              }});
  });
}

TEST(BoundedExchange, MetaNeedsNoOtherRank) {
  Context context({.device = kMeta});
  DryCommunicator world(0, 2, {.messages = context.arena()});
  test::ValueWeights weights;
  Tape tape(context, weights);
  const Tensor offsets = context.Empty(DType::kI32, {4}, "test");
  for (const int copies : {1, 2}) {
    const std::vector<int> owner = copies == 1 ? std::vector{0, 0, 1} : std::vector{0, 0, 0};
    const BoundedExchange exchange = MakeBoundedExchange(
        offsets, 10, owner, copies,
        {.capacity = 7, .overflow = context.Zeros(DType::kF64, {1}, "test")}, world, context);
    const Var rows = tape.Input(context.Empty(DType::kF32, {10, 8}, "test"));
    const Var local = ToExperts(tape, rows, exchange, &world).Wait(tape);
    EXPECT_EQ(local.shape(), (Shape{14, 8}));
    EXPECT_EQ(exchange.local_offsets.shape(), (Shape{copies == 1 ? 3 : 4}));
    const Var back = FromExperts(tape, local, exchange, &world).Wait(tape);
    const Tape::Seed seeds[] = {{back.id(), context.Empty(DType::kF32, {10, 8}, "test")}};
    tape.Backward(seeds);
    EXPECT_EQ(tape.LeafGradient(rows.id()).shape(), (Shape{10, 8}));
  }
}

}  // namespace
}  // namespace moebius
