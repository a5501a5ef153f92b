// Which attention runs on tensor cores, and how many instructions it takes. Its numbers are those
// of kernels/attention_entries_test.cc on the emulated GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/accelerator.h"
#include "kernels/cuda/emulation/hopper.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::cuda {
namespace {

using kernels::AttentionShape;

class AttentionHopperTest : public testing::Test {
 protected:
  struct Results {
    Tensor y, logsumexp, dq, dk, dv;
  };
  struct Instructions {
    int64_t forward, backward;
    bool operator==(const Instructions&) const = default;
  };

  Tensor Normal(DType dtype, int64_t rows, int64_t columns, const char* name) {
    return test::RandomTensor(context_, dtype, {rows, columns}, name);
  }

  // Of both passes; results begin as other numbers.
  Instructions Run(const AttentionShape& shape, DType dtype, const Tensor& ids, Results& results) {
    const auto& [B, S, H, G, C, queries] = shape;
    const int64_t Q = shape.queries_per_sequence();
    const Tensor q = Normal(dtype, B * Q, H * C, "q"), k = Normal(dtype, B * S, G * C, "k"),
                 v = Normal(dtype, B * S, G * C, "v"), dy = Normal(dtype, B * Q, H * C, "dy");
    results = {Normal(dtype, B * Q, H * C, "y"), Normal(DType::kF32, B * Q, H, "logsumexp"),
               Normal(dtype, B * Q, H * C, "dq"), Normal(dtype, B * S, G * C, "dk"),
               Normal(dtype, B * S, G * C, "dv")};
    const auto& [y, logsumexp, dq, dk, dv] = results;
    const int64_t begin = NumProducts();
    kernels::Attention({shape, q, k, v, ids, y, logsumexp}, context_);
    const int64_t middle = NumProducts();
    kernels::AttentionGradient({shape, q, k, v, ids, y, logsumexp, dy, dq, dk, dv}, context_);
    return {middle - begin, NumProducts() - middle};
  }
  Instructions Run(const AttentionShape& shape, DType dtype = DType::kBF16,
                   const Tensor& ids = {}) {
    Results results;
    return Run(shape, dtype, ids, results);
  }

  // So far.
  int64_t NumProducts() {
    context_.accelerator()->Wait();
    return cuda_emulation::NumProducts();
  }

  // Document ids: from position `begin` to `end`, `id`; 0 elsewhere.
  Tensor Ids(int begin, int end, int id) {
    std::vector<double> ids(300);
    std::fill(ids.begin() + begin, ids.begin() + end, id);
    return test::FromValues(context_, DType::kI32, {300}, ids);
  }

  // Of `forward` pairs of 128 queries and 128 keys, and `backward` of 64 queries and 128 keys: two
  // warpgroups, 16 of the depth at a time.
  static Instructions OfTiles(int64_t C, int64_t forward, int64_t backward) {
    const int64_t scores = 2 * C / 16, weighted = 2 * 128 / 16;
    return {forward * (scores + weighted),
            forward * (2 * scores + weighted) + backward * (2 * scores + weighted)};
  }

  Context context_{{.device = {DeviceKind::kCuda, 0}, .accelerator = OpenDevice(0)}};
};

// 300 positions: 1 + 2 + 3 tiles of keys; 5 + 3 + 1 of queries.
TEST_F(AttentionHopperTest, TilesAboveTheDiagonalAreSkipped) {
  EXPECT_EQ(Run({1, 300, 1, 1, 64}), OfTiles(64, 6, 9));
  EXPECT_EQ(Run({2, 300, 2, 1, 128}), OfTiles(128, 4 * 6, 4 * 9));
  EXPECT_EQ(Run({1, 1, 1, 1, 128}), OfTiles(128, 1, 1));
}

// Queries 200 .. 299 alone: their tile sees keys 0 .. 299, and each tile of keys has theirs from
// 200 and from 264 on.
TEST_F(AttentionHopperTest, ChunksHaveTilesOfTheirOwn) {
  EXPECT_EQ(Run({1, 300, 1, 1, 64, {1, 100, {200}}}), OfTiles(64, 3, 2 + 2 + 2));
  EXPECT_EQ(Run({1, 300, 1, 1, 64, {2, 10, {20, 280}}}), OfTiles(64, 1 + 3, 2 + 1 + 1));
  EXPECT_EQ(Run({1, 300, 1, 1, 64, {1, 0, {300}}}), OfTiles(64, 0, 0));
}

// Documents of 128 and 172 positions: the second one's tiles begin with it.
TEST_F(AttentionHopperTest, TilesOfOtherDocumentsAreSkipped) {
  EXPECT_EQ(Run({1, 300, 1, 1, 64}, DType::kBF16, Ids(128, 300, 1)),
            OfTiles(64, 1 + 1 + 2, 2 + 3 + 1));
}

TEST_F(AttentionHopperTest, OtherAttentionIsOnPlainCores) {
  constexpr Instructions kNone = {0, 0};
  EXPECT_EQ(Run({1, 20, 1, 1, 64}, DType::kF32), kNone);
  EXPECT_EQ(Run({1, 20, 1, 1, 32}), kNone);
  EXPECT_EQ(Run({1, 20, 1, 1, 96}), kNone);
  EXPECT_EQ(Run({1, 20, 1, 1, 256}), kNone);
}

// A position that sees itself alone: its output is its value, and scores have no gradient.
TEST_F(AttentionHopperTest, OnePositionHasItsValue) {
  Results results;
  Run({3, 1, 2, 1, 64}, DType::kBF16, {}, results);
  const std::vector<double> v = test::ToDoubles(Normal(DType::kBF16, 3, 64, "v"));
  const std::vector<double> y = test::ToDoubles(results.y), dq = test::ToDoubles(results.dq);
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y[i], v[i / 128 * 64 + i % 64]) << i;
    ASSERT_NEAR(dq[i], 0, 1e-5) << i;
  }
}

TEST_F(AttentionHopperTest, PaddingIsZero) {
  constexpr int kBegin = 100, kEnd = 290;
  Results results;
  Run({1, 300, 2, 2, 64}, DType::kBF16, Ids(kBegin, kEnd, -1), results);
  for (const Tensor& x : {results.y, results.logsumexp, results.dq, results.dk, results.dv}) {
    const std::vector<double> values = test::ToDoubles(x);
    const int64_t width = x.shape()[1];
    for (int64_t i = kBegin * width; i < kEnd * width; ++i) ASSERT_EQ(values[i], 0) << i;
  }
}

TEST_F(AttentionHopperTest, GivesTheSameBitsAgain) {
  const AttentionShape shape = {2, 150, 4, 2, 128, {2, 50, {0, 100}}};
  Results first, again;
  Run(shape, DType::kBF16, {}, first);
  Run(shape, DType::kBF16, {}, again);
  test::ExpectSameBits(first.y, again.y);
  test::ExpectSameBits(first.logsumexp, again.logsumexp);
  test::ExpectSameBits(first.dq, again.dq);
  test::ExpectSameBits(first.dk, again.dk);
  test::ExpectSameBits(first.dv, again.dv);
}

}  // namespace
}  // namespace moebius::cuda
