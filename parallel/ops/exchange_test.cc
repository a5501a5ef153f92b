#include "parallel/ops/exchange.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/random.h"
#include "core/base/status.h"
#include "parallel/dry_communicator.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

constexpr int kNumExperts = 6;
constexpr int64_t kWidth = 4;

class NoWeights final : public WeightSource {
 public:
  Tensor Lease(Parameter& parameter, WeightFormat, DType) override { return parameter.value; }
};

// How many rows rank `rank` has for expert `expert`.
enum class Routing { kRandom, kAllToOne, kNone, kOneRankOnly };
int Count(Routing routing, int rank, int expert) {
  switch (routing) {
    case Routing::kRandom:
      return static_cast<int>(RandomStream(3, "counts").Below(rank * 100 + expert, 4));
    case Routing::kAllToOne:
      return expert == 4 ? 7 + rank : 0;
    case Routing::kNone:
      return 0;
    case Routing::kOneRankOnly:
      return rank == 0 ? 3 : 0;
  }
  return 0;
}

// The row's name in every element; below 256, so that BF16 holds it.
double Element(int rank, int expert, int i, int64_t column) {
  return (rank * 60 + expert * 10 + i) * (column % 2 == 0 ? 1 : -1);
}

template <class T>
T As(double x) {
  return static_cast<T>(static_cast<float>(x));
}
template <class T>
double AsDouble(T x) {
  return static_cast<double>(static_cast<float>(x));
}

template <class T>
void Fill(const Tensor& x, int64_t row, int rank, int expert, int i) {
  for (int64_t c = 0; c < kWidth; ++c) {
    x.data<T>()[row * kWidth + c] = As<T>(Element(rank, expert, i, c));
  }
}

template <class T>
void ExpectRow(const Tensor& x, int64_t row, int rank, int expert, int i, double factor = 1) {
  for (int64_t c = 0; c < kWidth; ++c) {
    EXPECT_EQ(AsDouble(x.data<T>()[row * kWidth + c]), factor * Element(rank, expert, i, c));
  }
}

struct Case {
  Routing routing;
  std::vector<int> owner;
  int num_ranks;
  int copies = 1;
};

template <class T>
void Check(const Case& c, Communicator& world) {
  SCOPED_TRACE(absl::StrCat("rank ", world.rank(), " of ", world.size(), ", routing ",
                            static_cast<int>(c.routing), ", ", NameOf(kDTypeOf<T>)));
  Context context;
  NoWeights weights;
  const int me = world.rank();
  const Tensor offsets = context.Zeros(DType::kI32, {kNumExperts + 1}, "test");
  for (int j = 0; j < kNumExperts; ++j) {
    offsets.data<int32_t>()[j + 1] = offsets.data<int32_t>()[j] + Count(c.routing, me, j);
  }
  const int64_t P = offsets.data<int32_t>()[kNumExperts];
  const Tensor x = context.Empty(kDTypeOf<T>, {P, kWidth}, "test");
  for (int64_t j = 0, row = 0; j < kNumExperts; ++j) {
    for (int i = 0; i < Count(c.routing, me, j); ++i) Fill<T>(x, row++, me, j, i);
  }

  Tape tape(context, weights);
  const Exchange exchange = MakeExchange(offsets, c.owner, c.copies, world, context);
  const Var rows = tape.Input(x);
  const Var local = ToExperts(tape, rows, exchange, &world).Wait(tape);

  // By expert, then by source, then as sent.
  int64_t row = 0;
  for (int j = 0, local_expert = 0; j < kNumExperts; ++j) {
    if (c.owner[j] != me / c.copies) continue;
    EXPECT_EQ(exchange.local_offsets.data<int32_t>()[local_expert++], row);
    for (int r = 0; r < world.size(); ++r) {
      for (int i = 0; i < Count(c.routing, r, j); ++i) {
        ASSERT_LT(row, local.shape()[0]);
        ExpectRow<T>(local.value(), row++, r, j, i);
      }
    }
  }
  EXPECT_EQ(local.shape(), (Shape{row, kWidth}));

  // There and back is the identity, forward and backward; times the copies that add up.
  const Var back = FromExperts(tape, local, exchange, &world).Wait(tape);
  const Var again =
      FromExperts(tape, local, exchange, &world).Wait(tape);  // gradients add up on the way
  ASSERT_EQ(back.shape(), x.shape());
  const auto check_rows = [&](const Tensor& y, double factor) {
    for (int64_t j = 0, at = 0; j < kNumExperts; ++j) {
      for (int i = 0; i < Count(c.routing, me, j); ++i) ExpectRow<T>(y, at++, me, j, i, factor);
    }
  };
  check_rows(back.value(), c.copies);
  const auto copy = [&] {
    const Tensor y = context.Empty(x.dtype(), x.shape(), "test");
    std::copy_n(x.data<T>(), x.size(), y.data<T>());
    return y;
  };
  if (world.size() == 1) {
    EXPECT_EQ(back.id().index, rows.id().index) << "one rank exchanges nothing";
    return;
  }
  const Tape::Seed seeds[] = {{back.id(), copy()}, {again.id(), copy()}};
  tape.Backward(seeds);
  check_rows(tape.LeafGradient(rows.id()), 2 * c.copies);
  for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
}

TEST(Exchange, ThereAndBack) {
  const std::vector<Case> cases = {
      {Routing::kRandom, {0, 0, 0, 0, 0, 0}, 1},
      {Routing::kRandom, {0, 0, 0, 1, 1, 1}, 2},
      {Routing::kAllToOne, {0, 0, 0, 1, 1, 1}, 2},
      {Routing::kNone, {0, 0, 0, 1, 1, 1}, 2},
      {Routing::kRandom, {1, 0, 1, 1, 0, 1}, 2},
      {Routing::kRandom, {0, 0, 1, 1, 2, 2}, 3},
      {Routing::kRandom, {2, 0, 2, 0, 2, 0}, 3},  // rank 1 has no expert
      {Routing::kAllToOne, {2, 0, 1, 0, 2, 1}, 3},
      {Routing::kRandom, {3, 1, 2, 0, 0, 3}, 4},
      {Routing::kOneRankOnly, {3, 1, 2, 0, 0, 3}, 4},
      {Routing::kRandom, {0, 0, 0, 0, 0, 0}, 2, 2},
      {Routing::kRandom, {1, 0, 1, 1, 0, 0}, 4, 2},
      {Routing::kAllToOne, {0, 0, 1, 1, 1, 0}, 4, 2},
      {Routing::kNone, {0, 0, 0, 0, 0, 0}, 4, 4},
      {Routing::kRandom, {0, 0, 0, 0, 0, 0}, 4, 4},
  };
  for (const Case& c : cases) {
    RunOnThreads(c.num_ranks, [&](Communicator& world) {
      Check<double>(c, world);
      Check<float>(c, world);
      Check<BF16>(c, world);
    });
  }
}

TEST(Exchange, MetaNeedsNoOtherRank) {
  Context context({.device = kMeta});
  DryCommunicator world(0, 2, {.messages = context.arena()});
  NoWeights weights;
  Tape tape(context, weights);
  const Tensor offsets = context.Empty(DType::kI32, {4}, "test");
  for (const int copies : {1, 2}) {
    const std::vector<int> owner = copies == 1 ? std::vector{0, 0, 1} : std::vector{0, 0, 0};
    const Exchange exchange = MakeExchange(offsets, owner, copies, world, context);
    const Var rows = tape.Input(context.Empty(DType::kF32, {10, 8}, "test"));
    const Var local = ToExperts(tape, rows, exchange, &world).Wait(tape);
    EXPECT_EQ(local.shape(), (Shape{10 * copies, 8}));
    EXPECT_EQ(exchange.local_offsets.shape(), (Shape{copies == 1 ? 3 : 4}));
    const Var back = FromExperts(tape, local, exchange, &world).Wait(tape);
    const Tape::Seed seeds[] = {{back.id(), context.Empty(DType::kF32, {10, 8}, "test")}};
    tape.Backward(seeds);
    EXPECT_EQ(tape.LeafGradient(rows.id()).shape(), (Shape{10, 8}));
  }
}

}  // namespace
}  // namespace moebius
