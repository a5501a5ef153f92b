#include "parallel/ops/sequence.h"

#include <gtest/gtest.h>

#include <numeric>

#include "absl/strings/str_cat.h"
#include "parallel/dry_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

using test::ExpectSameBits;

constexpr int64_t kWidth = 3, kChunk = 2;  // elements of a row, positions of a chunk

int64_t LengthOf(const SequenceCut& cut) { return cut.num_ranks * cut.chunks_per_rank * kChunk; }

// The rows of all sequences that `rank` holds, in its order.
std::vector<int64_t> LocalRows(const SequenceCut& cut, int rank) {
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < cut.num_sequences; ++b) {
    for (const auto& [begin, length] : SequenceChunks(cut, LengthOf(cut), rank)) {
      for (int64_t s = begin; s < begin + length; ++s) rows.push_back(b * LengthOf(cut) + s);
    }
  }
  return rows;
}

// `factor` times the name of each row, which are small enough for sums over ranks to be exact in
// BF16.
std::vector<double> Elements(const std::vector<int64_t>& rows, double factor) {
  std::vector<double> x;
  for (const int64_t row : rows) {
    for (const int64_t digit : {row % 12 + 1, -(row / 12), row % 5}) {
      x.push_back(factor * static_cast<double>(digit));
    }
  }
  return x;
}

// Calls fn(cut, world) on every rank of groups of 1 to 4, for every kind of cut.
template <class Fn>
void ForEveryCut(const Fn& fn) {
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    RunOnThreads(num_ranks, [&](Communicator& world) {
      for (const int chunks : {1, 2}) {
        for (const int64_t B : {3, 1, 0}) {
          SCOPED_TRACE(absl::StrCat("rank ", world.rank(), " of ", num_ranks, ", ", chunks,
                                    " chunks a rank, ", B, " sequences"));
          fn(SequenceCut{.num_sequences = B, .num_ranks = num_ranks, .chunks_per_rank = chunks},
             world);
        }
      }
    });
  }
}

TEST(SequenceChunks, KnownAnswers) {
  using Chunks = std::vector<SequenceChunk>;
  const SequenceCut zig_zag = {.num_ranks = 2, .chunks_per_rank = 2};
  EXPECT_EQ(SequenceChunks(zig_zag, 16, 0), (Chunks{{0, 4}, {12, 4}}));
  EXPECT_EQ(SequenceChunks(zig_zag, 16, 1), (Chunks{{4, 4}, {8, 4}}));
  const SequenceCut in_order = {.num_ranks = 3};
  EXPECT_EQ(SequenceChunks(in_order, 6, 2), (Chunks{{4, 2}}));
  EXPECT_EQ(SequenceChunks(in_order, 0, 1), (Chunks{{0, 0}}));
  EXPECT_EQ(SequenceChunks({.num_ranks = 1, .chunks_per_rank = 2}, 6, 0), (Chunks{{0, 3}, {3, 3}}));
}

TEST(SequenceChunks, ZigZagGivesEveryRankTheSameCausalWork) {
  const SequenceCut cut = {.num_ranks = 4, .chunks_per_rank = 2};
  for (int rank = 0; rank < cut.num_ranks; ++rank) {
    int64_t keys_seen = 0;
    for (const auto& [begin, length] : SequenceChunks(cut, 32, rank)) {
      for (int64_t s = begin; s < begin + length; ++s) keys_seen += s + 1;
    }
    EXPECT_EQ(keys_seen, 32 * 33 / 2 / cut.num_ranks);
  }
}

// Rows arrive in the order of the sequences; gradients come back as sums, also to a slot that holds
// one already.
TEST(Sequence, GatherKnownAnswers) {
  ForEveryCut([](const SequenceCut& cut, Communicator& world) {
    const std::vector<int64_t> mine = LocalRows(cut, world.rank());
    const int64_t T = cut.num_sequences * LengthOf(cut);
    std::vector<int64_t> all(T);
    std::iota(all.begin(), all.end(), 0);
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(NameOf(dtype));
      Context context;
      test::ValueWeights weights;
      Tape tape(context, weights);
      const Shape local = {static_cast<int64_t>(mine.size()), kWidth};
      const Var x = tape.Input(test::FromValues(context, dtype, local, Elements(mine, 1)));
      const Var y = GatherSequence(tape, x, cut, &world);
      const Var again = GatherSequence(tape, x, cut, &world);
      EXPECT_EQ(y.shape(), (Shape{T, kWidth}));
      EXPECT_EQ(test::ToDoubles(y.value()), Elements(all, 1));
      if (cut.num_ranks == 1) {
        EXPECT_EQ(y.id().index, x.id().index) << "one rank gathers nothing";
        continue;
      }
      const auto seed = [&] {  // rank r's gradient is r + 1 times the row's name
        return test::FromValues(context, dtype, {T, kWidth}, Elements(all, world.rank() + 1));
      };
      const Tape::Seed seeds[] = {{y.id(), seed()}, {again.id(), seed()}};
      tape.Backward(seeds);
      const int sum = cut.num_ranks * (cut.num_ranks + 1) / 2;
      EXPECT_EQ(test::ToDoubles(tape.LeafGradient(x.id())), Elements(mine, 2 * sum));
    }
  });
}

TEST(Sequence, ScatterKnownAnswers) {
  ForEveryCut([](const SequenceCut& cut, Communicator& world) {
    const std::vector<int64_t> mine = LocalRows(cut, world.rank());
    const int64_t T = cut.num_sequences * LengthOf(cut);
    std::vector<int64_t> all(T);
    std::iota(all.begin(), all.end(), 0);
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(NameOf(dtype));
      Context context;
      test::ValueWeights weights;
      Tape tape(context, weights);
      const Var x = tape.Input(
          test::FromValues(context, dtype, {T, kWidth}, Elements(all, world.rank() + 1)));
      const Var y = ScatterSequence(tape, x, cut, &world);
      const Var again = ScatterSequence(tape, x, cut, &world);
      const int sum = cut.num_ranks * (cut.num_ranks + 1) / 2;
      EXPECT_EQ(test::ToDoubles(y.value()), Elements(mine, sum));
      if (cut.num_ranks == 1) {
        EXPECT_EQ(y.id().index, x.id().index) << "one rank scatters nothing";
        continue;
      }
      const auto seed = [&] {
        return test::FromValues(context, dtype, y.shape(), Elements(mine, 1));
      };
      const Tape::Seed seeds[] = {{y.id(), seed()}, {again.id(), seed()}};
      tape.Backward(seeds);
      EXPECT_EQ(test::ToDoubles(tape.LeafGradient(x.id())), Elements(all, 2));
    }
  });
}

double Dot(const Tensor& x, const Tensor& y) {
  return std::inner_product(x.span<double>().begin(), x.span<double>().end(),
                            y.span<double>().begin(), 0.0);
}

// Over all ranks <gather(x), y> = <x, scatter(y)>, and each is the other's gradient.
TEST(Sequence, GatherAndScatterAreTransposes) {
  ForEveryCut([](const SequenceCut& cut, Communicator& world) {
    if (cut.num_ranks == 1) return;
    Context context;
    test::ValueWeights weights;
    Tape tape(context, weights);
    const auto random = [&](int64_t rows, const char* name) {
      return test::RandomTensor(context, DType::kF64, {rows, kWidth},
                                absl::StrCat(name, world.rank()));
    };
    const int64_t T = cut.num_sequences * LengthOf(cut);
    const Var x = tape.Input(random(T / cut.num_ranks, "x"));
    const Var y = tape.Input(random(T, "y"));
    const Var gathered = GatherSequence(tape, x, cut, &world);
    const Var scattered = ScatterSequence(tape, y, cut, &world);
    std::vector<double> products = {Dot(gathered.value(), y.value()),
                                    Dot(x.value(), scattered.value())};
    world.AllReduce(std::span(products)).Wait();
    EXPECT_NEAR(products[0], products[1], 1e-12 * static_cast<double>(T * cut.num_ranks));

    const Tape::Seed seeds[] = {{gathered.id(), random(T, "y")},
                                {scattered.id(), random(T / cut.num_ranks, "x")}};
    tape.Backward(seeds);
    ExpectSameBits(tape.LeafGradient(x.id()), scattered.value());
    ExpectSameBits(tape.LeafGradient(y.id()), gathered.value());
  });
}

TEST(Sequence, MetaNeedsNoOtherRank) {
  Context context({.device = kMeta});
  DryCommunicator world(0, 2, {.messages = context.arena()});
  test::ValueWeights weights;
  Tape tape(context, weights);
  const SequenceCut cut = {.num_sequences = 3, .num_ranks = 2, .chunks_per_rank = 2};
  const Var x = tape.Input(context.Empty(DType::kF32, {12, 8}, "test"));
  const Var all = GatherSequence(tape, x, cut, &world);
  EXPECT_EQ(all.shape(), (Shape{24, 8}));
  const Var local = ScatterSequence(tape, all, cut, &world);
  EXPECT_EQ(local.shape(), x.shape());
  const Tape::Seed seed = {local.id(), context.Empty(DType::kF32, {12, 8}, "test")};
  tape.Backward({&seed, 1});
  EXPECT_EQ(tape.LeafGradient(x.id()).shape(), x.shape());
}

// A single rank takes any length: an odd number of positions is no two chunks.
TEST(Sequence, OneRankCutsNothing) {
  RunOnThreads(1, [](Communicator& world) {
    Context context;
    test::ValueWeights weights;
    Tape tape(context, weights);
    const Var x = tape.Input(context.Zeros(DType::kF64, {7, kWidth}, "x"));
    const SequenceCut cut{.num_sequences = 1, .num_ranks = 1, .chunks_per_rank = 2};
    EXPECT_EQ(GatherSequence(tape, x, cut, &world).id().index, x.id().index);
    EXPECT_EQ(ScatterSequence(tape, x, cut, &world).id().index, x.id().index);
  });
}

}  // namespace
}  // namespace moebius
