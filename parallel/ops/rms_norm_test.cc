#include "parallel/ops/rms_norm.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/ops/rms_norm.h"
#include "parallel/dry_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

constexpr int64_t kColumns = 4;  // of a rank
constexpr double kEpsilon = 1e-3;

// Columns of a rank, of a matrix or of one row.
Tensor OwnColumns(Context& context, const Tensor& whole, int ranks, int rank) {
  const int64_t width = kColumns * ranks, rows = whole.size() / width;
  const std::vector<double> all = test::ToDoubles(whole);
  std::vector<double> own;
  for (int64_t r = 0; r < rows; ++r) {
    const auto begin = all.begin() + r * width + rank * kColumns;
    own.insert(own.end(), begin, begin + kColumns);
  }
  const bool is_matrix = whole.shape().rank() == 2;
  return test::FromValues(context, whole.dtype(),
                          is_matrix ? Shape{rows, kColumns} : Shape{kColumns}, own);
}

struct Results {
  Tensor y, dx, dw;
};

template <class Norm>
Results Train(Context& context, const Tensor& x, const Tensor& w, const Tensor& dy,
              const Norm& norm) {
  test::ValueWeights weights;
  Parameter gain = test::MakeParameter(context, w);
  Tape tape(context, weights);
  const Var in = tape.Input(x);
  const Var y = norm(tape, in, &gain);
  const Tape::Seed seed = {y.id(), dy};
  tape.Backward({&seed, 1});
  return {y.value(), tape.LeafGradient(in.id()), gain.gradient};
}

// Each rank has its columns of what one rank gives.
TEST(RmsNormOverRanks, PartsOfWholeRows) {
  for (const int ranks : {1, 2, 3}) {
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      for (const int64_t T : {5, 0}) {
        RunOnThreads(ranks, [&](Communicator& world) {
          SCOPED_TRACE(absl::StrCat(NameOf(dtype), ", rank ", world.rank(), " of ", ranks));
          Context context;
          const Shape shape = {T, kColumns * ranks};
          const DType precise = dtype == DType::kF64 ? dtype : DType::kF32;
          const Tensor x = test::RandomTensor(context, dtype, shape, "x");
          const Tensor dy = test::RandomTensor(context, dtype, shape, "dy");
          const Tensor w = test::RandomTensor(context, precise, {kColumns * ranks}, "w");
          const auto exact = [&](const Tensor& of) {
            return test::Convert(context, of, DType::kF64);
          };
          const Results whole = Train(context, exact(x), exact(w), exact(dy),
                                      [](Tape& tape, const Var& in, Parameter* gain) {
                                        return ops::RmsNorm(tape, in, gain, kEpsilon);
                                      });
          const auto own = [&](const Tensor& of) {
            return OwnColumns(context, of, ranks, world.rank());
          };
          const Results part = Train(context, own(x), own(w), own(dy),
                                     [&](Tape& tape, const Var& in, Parameter* gain) {
                                       return RmsNormOverRanks(tape, in, gain, kEpsilon, &world);
                                     });
          test::ExpectClose(part.y, own(whole.y), kColumns * ranks);
          test::ExpectClose(part.dx, own(whole.dx), kColumns * ranks);
          test::ExpectClose(part.dw, own(whole.dw), std::max<int64_t>(T, 1));
        });
      }
    }
  }
}

TEST(RmsNormOverRanks, Gradients) {
  for (const int ranks : {2, 3}) {
    RunOnThreads(ranks, [&](Communicator& world) {
      Context context;
      const auto random = [&](const Shape& shape, const char* name) {
        return test::RandomTensor(context, DType::kF64, shape, absl::StrCat(name, world.rank()));
      };
      Parameter gain = test::MakeParameter(context, random({kColumns}, "w"));
      const auto fn = [&](Tape& tape, const std::vector<Var>& in) {
        return test::Outputs{.values = {RmsNormOverRanks(tape, in[0], &gain, kEpsilon, &world)}};
      };
      const auto sum = [&](double x) {
        world.AllReduce(std::span(&x, 1)).Wait();
        return x;
      };
      test::CheckGradients(context, fn, {random({3, kColumns}, "x")}, {&gain},
                           {.size = ranks, .rank = world.rank(), .sum = sum});
    });
  }
}

TEST(RmsNormOverRanks, MetaNeedsNoOtherRank) {
  Context context({.device = kMeta});
  DryCommunicator world(0, 2, {.messages = context.arena()});
  const Shape shape = {6, kColumns};
  const Results results = Train(
      context, context.Empty(DType::kF32, shape, "x"), context.Empty(DType::kF32, {kColumns}, "w"),
      context.Empty(DType::kF32, shape, "dy"), [&](Tape& tape, const Var& in, Parameter* gain) {
        return RmsNormOverRanks(tape, in, gain, kEpsilon, &world);
      });
  EXPECT_EQ(results.dx.shape(), shape);
}

}  // namespace
}  // namespace moebius
