#include "train/evaluate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/held_out_stream.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"
#include "train/batch_loader.h"

namespace moebius {
namespace {

constexpr double kTolerance = 1e-12;  // relative

using Evaluations = std::vector<DomainEvaluation>;

// Of the untrained model; what the last rank gets.
Evaluations EvaluateOn(int ranks, int expert_size, const EvaluationOptions& options) {
  Evaluations result;
  const RunConfig config = TinyConfig({"parallel.expert_size=" + std::to_string(expert_size)});
  OnTinySessions(ranks, config, [&](Session& session) {
    Evaluations own = Evaluate(session.model(), session.weights(), TinyDataset(), options,
                               session.mesh(), session.context());
    if (session.mesh().world().rank() == ranks - 1) result = std::move(own);
  });
  return result;
}

// The first `samples` of a domain, one by one.
DomainEvaluation OneByOne(Session& session, const Domain& domain, int64_t samples,
                          const EvaluationOptions& options) {
  const HeldOutStream stream(domain.held_out.shard, options.sequence_length);
  DomainEvaluation result{.domain = domain.name};
  for (int64_t i = 0; i < samples; ++i) {
    const MicroBatch batch =
        MakeMicroBatch({stream.Get(i)}, {i},
                       {.sequence_length = options.sequence_length,
                        .attention_within_documents = options.attention_within_documents,
                        .dtype = DType::kF64},
                       session.context());
    Tape tape(session.context(), session.weights(), Tape::Mode::kForwardOnly);
    const StepInputs inputs{.pass = Pass::kEvaluate};
    const Bundle out = session.model().Forward(tape, 0, {}, batch, inputs);
    const Tensor losses = session.model().TokenLosses(tape, out["hidden"], batch);
    for (const double loss : losses.span<double>()) result.loss += loss;  // of padding: 0
    result.tokens +=
        std::min(options.sequence_length, stream.num_predicted() - i * options.sequence_length);
  }
  const double bits = result.loss / std::numbers::ln2;
  const double share =
      static_cast<double>(result.tokens) / static_cast<double>(stream.num_predicted());
  result.text_bytes = std::llround(share * static_cast<double>(domain.held_out.num_bytes));
  result.bits_per_byte = bits / static_cast<double>(result.text_bytes);
  result.loss /= static_cast<double>(result.tokens);
  return result;
}

int64_t NumSamples(const Domain& domain, int64_t sequence_length) {
  return HeldOutStream(domain.held_out.shard, sequence_length).num_samples();
}

const Split& HeldOut(const std::string& name) {
  return std::ranges::find(TinyDataset().domains(), name, &Domain::name)->held_out;
}

void ExpectSame(const Evaluations& actual, const Evaluations& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    SCOPED_TRACE(expected[i].domain);
    EXPECT_EQ(actual[i].domain, expected[i].domain);
    EXPECT_EQ(actual[i].tokens, expected[i].tokens);
    EXPECT_EQ(actual[i].text_bytes, expected[i].text_bytes);
    EXPECT_NEAR(actual[i].loss, expected[i].loss, kTolerance * expected[i].loss);
    EXPECT_NEAR(actual[i].bits_per_byte, expected[i].bits_per_byte,
                kTolerance * expected[i].bits_per_byte);
  }
}

// The sum over the first samples of each domain; at most `most` of them.
Evaluations Expected(const EvaluationOptions& options, int64_t most) {
  Evaluations expected;
  OnTinySessions(1, TinyConfig({}), [&](Session& session) {
    for (const Domain& domain : TinyDataset().domains()) {
      const int64_t samples = std::min(NumSamples(domain, options.sequence_length), most);
      expected.push_back(OneByOne(session, domain, samples, options));
    }
  });
  return expected;
}

struct Layout {
  int ranks, expert_size;
};
constexpr Layout kLayouts[] = {{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 4}};

void ExpectOn(std::span<const Layout> layouts, const EvaluationOptions& options, int64_t samples) {
  const Evaluations expected = Expected(options, samples);
  for (const auto& [ranks, expert_size] : layouts) {
    SCOPED_TRACE(testing::Message() << ranks << " ranks, experts over " << expert_size);
    ExpectSame(EvaluateOn(ranks, expert_size, options), expected);
  }
}

constexpr int64_t kAll = std::numeric_limits<int64_t>::max();

TEST(Evaluate, AllHeldOutText) {
  const EvaluationOptions options{.sequence_length = 64, .micro_batch_size = 3};
  const Evaluations all = EvaluateOn(4, 4, options);
  for (const DomainEvaluation& domain : all) {
    const Split& held_out = HeldOut(domain.domain);
    EXPECT_EQ(domain.tokens, held_out.shard.num_tokens() - 1);
    EXPECT_NE(domain.tokens % options.sequence_length, 0) << "no padding was tested";
    EXPECT_EQ(domain.text_bytes, held_out.num_bytes);
  }
  ExpectSame(all, Expected(options, kAll));
}

TEST(Evaluate, UnevenRounds) {
  // 7 samples in rounds of ranks x micro_batch_size.
  for (const int64_t micro_batch_size : {1, 2, 5}) {
    ExpectOn(kLayouts,
             {.sequence_length = 16,
              .micro_batch_size = micro_batch_size,
              .max_tokens_per_domain = 7 * 16},
             7);
  }
}

TEST(Evaluate, FewerSamplesThanRanks) {
  for (const int64_t samples : {1, 2}) {
    for (const int64_t micro_batch_size : {1, 4}) {
      ExpectOn(kLayouts,
               {.sequence_length = 16,
                .micro_batch_size = micro_batch_size,
                .max_tokens_per_domain = 16 * samples},
               samples);
    }
  }
}

TEST(Evaluate, WholeSequencesUpToTheMostTokens) {
  for (const auto& [most_tokens, samples] :
       {std::pair{1, 1}, {32, 1}, {63, 1}, {64, 2}, {100, 3}}) {
    SCOPED_TRACE(most_tokens);
    const EvaluationOptions options{
        .sequence_length = 32, .micro_batch_size = 2, .max_tokens_per_domain = most_tokens};
    const Evaluations evaluations = EvaluateOn(2, 1, options);
    ExpectSame(evaluations, Expected(options, samples));
    for (const DomainEvaluation& domain : evaluations) EXPECT_EQ(domain.tokens, 32 * samples);
  }
}

TEST(Evaluate, MoreThanThereIsIsAll) {
  const EvaluationOptions options{
      .sequence_length = 64, .micro_batch_size = 4, .max_tokens_per_domain = 1000000};
  for (const DomainEvaluation& domain : EvaluateOn(2, 1, options)) {
    EXPECT_EQ(domain.tokens, HeldOut(domain.domain).shard.num_tokens() - 1);
  }
}

TEST(Evaluate, IsNoPartOfTraining) {
  for (const char* counts : {"PREVIOUS_STEP", "EXACT", "RUNNING"}) {
    SCOPED_TRACE(counts);
    std::vector<double> alone, beside;
    for (std::vector<double>* curve : {&alone, &beside}) {
      const RunConfig config = TinyConfig(
          {"train.eval_max_tokens_per_domain=16", "model.moe.balance.bias_update_rate=0.01",
           std::string("model.moe.balance.global_counts=") + counts});
      OnTinySessions(1, config, [&](Session& session) {
        for (int i = 0; i < 3; ++i) {
          if (curve == &beside) session.Evaluate();
          const StepResult result = session.Step();
          curve->insert(curve->end(), {result.loss, result.gradient_norm, result.routing.z_loss});
          for (const auto& layer : result.routing.counts) {
            curve->insert(curve->end(), layer.begin(), layer.end());
          }
        }
      });
    }
    EXPECT_EQ(alone, beside);
  }
}

}  // namespace
}  // namespace moebius
