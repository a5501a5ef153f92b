// Attention of context parallelism: each rank has the queries of its chunks and gathers the keys
// and values of whole sequences. Outputs and gradients are those of one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/ops/attention.h"
#include "parallel/ops/sequence.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

constexpr int64_t B = 2, S = 32, H = 4, G = 2, C = 5;
constexpr ops::AttentionShape kWhole = {B, S, H, G, C};

// Sequences of documents and of one document, with padding at the end of the first.
Tensor DocumentIds(Context& context) {
  std::vector<double> ids;
  for (int64_t s = 0; s < S; ++s) ids.push_back(s >= 29 ? -1 : s < 3 ? 0 : s < 14 ? 1 : 2);
  for (int64_t s = 0; s < S; ++s) ids.push_back(7);
  return test::FromValues(context, DType::kI32, {B * S}, ids);
}

// What attention reads and gives of some rows: values, or gradients.
struct Operands {
  Tensor q, k, v, y;
};

Operands Inputs(Context& context) {
  const auto random = [&](int64_t width, const char* name) {
    return test::RandomTensor(context, DType::kF64, {B * S, width}, name);
  };
  return {random(H * C, "q"), random(G * C, "k"), random(G * C, "v"), random(H * C, "dy")};
}

// The rows of x [B * S, W] that `rank` holds.
Tensor LocalRows(Context& context, const Tensor& x, const SequenceCut& cut, int rank) {
  const int64_t W = x.shape()[1];
  const Tensor local = context.Empty(DType::kF64, {x.shape()[0] / cut.num_ranks, W}, "test");
  double* to = local.data<double>();
  for (int64_t b = 0; b < B; ++b) {
    for (const auto& [begin, length] : SequenceChunks(cut, S, rank)) {
      to = std::copy_n(x.data<double>() + (b * S + begin) * W, length * W, to);
    }
  }
  return local;
}

// The output, and the gradients for the gradient `in.y` of the output.
Operands Attend(Context& context, const Operands& in, const ops::AttentionShape& shape,
                const Tensor& ids, const SequenceCut& cut, Communicator& group) {
  test::ValueWeights weights;
  Tape tape(context, weights);
  const Var q = tape.Input(in.q), k = tape.Input(in.k), v = tape.Input(in.v);
  const Var y = ops::Attention(tape, q, GatherSequence(tape, k, cut, &group),
                               GatherSequence(tape, v, cut, &group), shape, ids);
  const Tape::Seed seed = {y.id(), test::Convert(context, in.y, DType::kF64)};
  tape.Backward({&seed, 1});
  return {tape.LeafGradient(q.id()), tape.LeafGradient(k.id()), tape.LeafGradient(v.id()),
          y.value()};
}

void ExpectNear(const Tensor& actual, const Tensor& expected, const char* name) {
  ASSERT_EQ(actual.shape(), expected.shape()) << name;
  for (int64_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual.data<double>()[i], expected.data<double>()[i], 1e-12) << name << ", " << i;
  }
}

class SequenceAttentionTest : public testing::TestWithParam<int> {};

TEST_P(SequenceAttentionTest, RanksGiveWhatOneRankGives) {
  for (const bool documents : {false, true}) {
    RunOnThreads(GetParam(), [&](Communicator& world) {
      SCOPED_TRACE(absl::StrCat("rank ", world.rank(), ", documents ", documents));
      Context context;
      const Tensor ids = documents ? DocumentIds(context) : Tensor();
      const Operands all = Inputs(context);
      const auto alone = world.Split({world.rank()}, "alone");
      const Operands expected =
          Attend(context, all, kWhole, ids, {.num_sequences = B, .chunks_per_rank = 2}, *alone);

      const SequenceCut cut = {.num_sequences = B, .num_ranks = world.size(), .chunks_per_rank = 2};
      const auto local = [&](const Tensor& x) { return LocalRows(context, x, cut, world.rank()); };
      const std::vector<SequenceChunk> chunks = SequenceChunks(cut, S, world.rank());
      ops::AttentionShape shape = kWhole;
      shape.queries = {2, chunks[0].length, {chunks[0].begin, chunks[1].begin}};
      const Operands actual =
          Attend(context, {local(all.q), local(all.k), local(all.v), local(all.y)}, shape, ids, cut,
                 world);
      ExpectNear(actual.y, local(expected.y), "y");
      ExpectNear(actual.q, local(expected.q), "dq");
      ExpectNear(actual.k, local(expected.k), "dk");
      ExpectNear(actual.v, local(expected.v), "dv");
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, SequenceAttentionTest, testing::Values(2, 4));

}  // namespace
}  // namespace moebius
