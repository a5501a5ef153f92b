// The loss of a head whose vocabulary is cut over ranks: kernels/ops/cross_entropy.h with the
// ranks' statistics made those of whole rows, as model/transformer.cc does it.
#include "kernels/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cross_entropy.h"
#include "parallel/ops/sequence.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

constexpr int64_t kTokens = 6, kWidth = 3, kVocabulary = 12;

// Each rank has some of the tokens, gathers all, and gives its share of their gradient back.
TEST(CrossEntropyOfParts, Gradients) {
  for (const int ranks : {2, 3}) {
    RunOnThreads(ranks, [&](Communicator& world) {
      SCOPED_TRACE(absl::StrCat("rank ", world.rank(), " of ", ranks));
      Context context;
      const auto random = [&](const Shape& shape, const std::string& name) {
        return test::RandomTensor(context, DType::kF64, shape, name);
      };
      const int64_t rows = kVocabulary / ranks;
      Parameter head =
          test::MakeParameter(context, random({rows, kWidth}, absl::StrCat("head", world.rank())));
      const Tensor labels = test::FromValues(context, DType::kI32, {kTokens}, {0, -1, 4, 6, 11, 7});
      const Tensor weights = random({kTokens}, "weights");
      weights.data<double>()[1] = 0;  // padding
      const ops::VocabularyPart part = {
          .first = rows * world.rank(),
          .size = kVocabulary,
          .combine = [&](const Tensor& statistics) {
            const Tensor parts =
                context.Empty(DType::kF64, {ranks, statistics.shape()[0], 3}, "test");
            world.AllGather(statistics, parts).Wait();
            kernels::CombineStatistics(parts, statistics, context);
          }};
      const auto fn = [&](Tape& tape, const std::vector<Var>& in) {
        const SequenceCut cut = {.num_sequences = 1, .num_ranks = ranks};
        const Var all = GatherSequence(tape, in[0], cut, &world);
        const Tensor loss = ops::CrossEntropyLoss(tape, all, &head, labels, weights, part);
        return test::Outputs{.losses = {{loss, world.rank() == 0 ? 1 : 0}}};  // once, not each
      };
      const auto sum = [&](double x) {
        world.AllReduce(std::span(&x, 1)).Wait();
        return x;
      };
      const Tensor x = random({kTokens / ranks, kWidth}, absl::StrCat("x", world.rank()));
      test::CheckGradients(context, fn, {x}, {&head},
                           {.size = ranks, .rank = world.rank(), .sum = sum});
    });
  }
}

}  // namespace
}  // namespace moebius
