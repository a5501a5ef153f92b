#include "kernels/row_slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using Numbers = std::vector<double>;

Tensor Ints(Context& ctx, const Shape& shape, const Numbers& values) {
  return test::FromValues(ctx, DType::kI32, shape, values);
}

// What RowSlots finds, on the host.
struct Slots {
  Numbers sent, received, local_offsets;
  double overflow;
};

struct Ranks {
  std::vector<Numbers> counts;  // [n][E] rows of each rank for each expert
  Numbers first_experts;
  int64_t copies, capacity;

  int64_t num_ranks() const { return std::ssize(counts); }
  int64_t num_experts() const { return std::ssize(counts[0]); }
  int64_t num_rows(int64_t rank) const {
    return static_cast<int64_t>(std::accumulate(counts[rank].begin(), counts[rank].end(), 0.0));
  }
  int64_t first_local(int64_t rank) const {
    return static_cast<int64_t>(first_experts[rank / copies]);
  }
  int64_t end_local(int64_t rank) const {
    return static_cast<int64_t>(first_experts[rank / copies + 1]);
  }
};

Slots SlotsOf(const Ranks& ranks, int64_t rank, Context& ctx) {
  const int64_t n = ranks.num_ranks(), E = ranks.num_experts();
  Numbers offsets;
  for (const Numbers& counts : ranks.counts) {
    offsets.push_back(0);
    for (const double count : counts) offsets.push_back(offsets.back() + count);
  }
  const int64_t e = ranks.end_local(rank) - ranks.first_local(rank);
  const RowSlotsArgs args = {
      .expert_offsets = Ints(ctx, {n, E + 1}, offsets),
      .first_experts = Ints(ctx, {n / ranks.copies + 1}, ranks.first_experts),
      .rank = rank,
      .copies = ranks.copies,
      .sent = ctx.Empty(DType::kI32, {ranks.num_rows(rank)}, "test"),
      .received = ctx.Empty(DType::kI32, {n, ranks.capacity}, "test"),
      .local_offsets = ctx.Empty(DType::kI32, {e + 1}, "test"),
      .overflow = ctx.Zeros(DType::kF64, {1}, "test")};
  RowSlots(args, ctx);
  return {test::ToDoubles(args.sent), test::ToDoubles(args.received),
          test::ToDoubles(args.local_offsets), test::ToDoubles(args.overflow)[0]};
}

TEST(RowSlots, KnownAnswer) {
  test::DeviceContext ctx;
  const Ranks ranks = {
      .counts = {{1, 3}, {1, 1}}, .first_experts = {0, 1, 2}, .copies = 1, .capacity = 2};
  const Slots of_0 = SlotsOf(ranks, 0, ctx), of_1 = SlotsOf(ranks, 1, ctx);
  EXPECT_EQ(of_0.sent, (Numbers{0, 2, 3, -1}));
  EXPECT_EQ(of_0.received, (Numbers{0, -1, 1, -1}));
  EXPECT_EQ(of_0.local_offsets, (Numbers{0, 2}));
  EXPECT_EQ(of_0.overflow, 1);
  EXPECT_EQ(of_1.sent, (Numbers{0, 2}));
  EXPECT_EQ(of_1.received, (Numbers{0, 1, 2, -1}));
  EXPECT_EQ(of_1.local_offsets, (Numbers{0, 3}));
  EXPECT_EQ(of_1.overflow, 0) << "its own rows have room";
}

TEST(RowSlots, RaisesTheFlagAndLeavesItRaised) {
  test::DeviceContext ctx;
  for (const double before : {0.0, 1.0}) {
    for (const double rows : {2.0, 3.0}) {
      const Tensor overflow = test::FromValues(ctx, DType::kF64, {1}, {before});
      RowSlots({.expert_offsets = Ints(ctx, {1, 2}, {0, rows}),
                .first_experts = Ints(ctx, {2}, {0, 1}),
                .rank = 0,
                .copies = 1,
                .sent = ctx.Empty(DType::kI32, {static_cast<int64_t>(rows)}, "test"),
                .received = ctx.Empty(DType::kI32, {1, 2}, "test"),
                .local_offsets = ctx.Empty(DType::kI32, {2}, "test"),
                .overflow = overflow},
               ctx);
      EXPECT_EQ(test::ToDoubles(overflow)[0], std::max(before, rows > 2 ? 1.0 : 0.0));
    }
  }
}

// Walks every row through its message: by expert, then by source, then as sent.
void CheckWalk(const Ranks& ranks, Context& ctx) {
  const int64_t n = ranks.num_ranks(), C = ranks.capacity;
  std::vector<Slots> slots;
  for (int64_t r = 0; r < n; ++r) slots.push_back(SlotsOf(ranks, r, ctx));
  for (int64_t to = 0; to < n; ++to) {
    const Numbers& received = slots[to].received;
    double row = 0, held = 0;
    for (int64_t j = ranks.first_local(to); j < ranks.end_local(to); ++j) {
      EXPECT_EQ(slots[to].local_offsets[j - ranks.first_local(to)], row);
      for (int64_t from = 0; from < n; ++from) {
        const Numbers& counts = ranks.counts[from];
        const double first = std::accumulate(counts.begin(), counts.begin() + j, 0.0);
        for (double i = first; i < first + counts[j]; ++i) {
          const double slot = slots[from].sent[static_cast<size_t>(i)];
          if (slot < 0) {
            EXPECT_EQ(slots[from].overflow, 1);
            continue;
          }
          const auto block = static_cast<int64_t>(slot) / C + to % ranks.copies;
          ASSERT_EQ(block, to) << "row " << i << " of " << from << " for expert " << j;
          EXPECT_EQ(received[from * C + static_cast<int64_t>(slot) % C], row++);
        }
      }
    }
    EXPECT_EQ(slots[to].local_offsets.back(), row);
    for (const double at : received) held += at >= 0 ? 1 : 0;
    EXPECT_EQ(held, row) << "slots that nobody filled";
  }
}

TEST(RowSlots, EveryRowArrivesInOrder) {
  test::DeviceContext ctx;
  const RandomStream stream(5, "row_slots");
  uint64_t next = 0;
  for (const auto& [n, copies, experts] :
       {std::array<int, 3>{1, 1, 3}, {2, 1, 5}, {4, 1, 9}, {4, 2, 4}, {3, 3, 2}, {40, 1, 41}}) {
    for (const int limit : {1, 4, 30}) {
      const int owners = n / copies;
      Ranks ranks = {.counts = {}, .first_experts = {0}, .copies = copies, .capacity = 7};
      for (int o = 1; o < owners; ++o) {  // the first owner has none where there are more than two
        ranks.first_experts.push_back(owners > 2 ? (o - 1) * experts / (owners - 1)
                                                 : o * experts / owners);
      }
      ranks.first_experts.push_back(experts);
      for (int r = 0; r < n; ++r) {
        Numbers& counts = ranks.counts.emplace_back();
        for (int j = 0; j < experts; ++j) {
          counts.push_back(static_cast<double>(stream.Below(next++, limit)));
        }
      }
      SCOPED_TRACE(std::to_string(n) + " ranks, below " + std::to_string(limit));
      CheckWalk(ranks, ctx);
    }
  }
}

TEST(ScatterRows, KnownAnswer) {
  test::DeviceContext ctx;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    Context& on = ctx.of(dtype);
    const Tensor x = test::FromValues(on, dtype, {3, 2}, {1, 2, 3, 4, 5, 6});
    const Tensor y = test::FromValues(on, dtype, {5, 2}, Numbers(10, 9));
    ScatterRows({.x = x, .at = Ints(on, {3}, {1, -1, 0}), .y = y, .copies = 2, .step = 3}, on);
    EXPECT_EQ(test::ToDoubles(y), (Numbers{5, 6, 1, 2, 9, 9, 5, 6, 1, 2}));
  }
}

TEST(GatherRows, KnownAnswer) {
  test::DeviceContext ctx;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    Context& on = ctx.of(dtype);
    const Tensor x = test::FromValues(on, dtype, {4, 2}, {1, 2, 3, 4, 50, 60, 70, 80});
    const Tensor y = test::FromValues(on, dtype, {3, 2}, Numbers(6, 9));
    const Tensor at = Ints(on, {3}, {1, -1, 0});
    GatherRows({.x = x, .at = at, .y = y}, on);
    EXPECT_EQ(test::ToDoubles(y), (Numbers{3, 4, 9, 9, 1, 2}));
    GatherRows({.x = x, .at = at, .y = y, .copies = 2, .step = 2}, on);
    EXPECT_EQ(test::ToDoubles(y), (Numbers{73, 84, 9, 9, 51, 62}));
  }
}

TEST(GatherRows, RoundsASumOfCopiesOnce) {
  test::DeviceContext ctx({.num_threads = 2});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const test::Values x = test::Normal(ctx, dtype, {3 * 70, 33}, "x");
    const Tensor at = test::RandomInts(ctx, {50}, 70, "at");
    const Tensor y = ctx.Empty(dtype, {50, 33}, "y");
    const Tensor exact = ctx.host().Empty(DType::kF64, {50, 33}, "y");
    GatherRows({.x = x.tensor, .at = at, .y = y, .copies = 3, .step = 70}, ctx);
    GatherRows({.x = x.exact, .at = ctx.Exact(at), .y = exact, .copies = 3, .step = 70},
               ctx.host());
    test::ExpectClose(y, exact, 3);
  }
}

TEST(ScatterRows, NothingIsOrdinary) {
  test::DeviceContext ctx;
  const Tensor none = ctx.Empty(DType::kF32, {0, 4}, "test");
  const Tensor y = test::FromValues(ctx, DType::kF32, {1, 4}, {1, 2, 3, 4});
  const Tensor at = ctx.Empty(DType::kI32, {0}, "test");
  ScatterRows({.x = none, .at = at, .y = y}, ctx);
  GatherRows({.x = y, .at = at, .y = none}, ctx);
  EXPECT_EQ(test::ToDoubles(y), (Numbers{1, 2, 3, 4}));
}

}  // namespace
}  // namespace moebius::kernels
