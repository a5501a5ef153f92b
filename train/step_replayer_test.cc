// Steps that a device is given as one piece of work: to the bit those that it is given kernel by
// kernel, whatever comes between them.
#include "train/step_replayer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/copy.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tiny_dataset.h"
#include "tests/testing/tiny_session.h"
#include "train/evaluate.h"
#include "train/step_engine.h"

namespace moebius {
namespace {

class OpCounter final : public WorkObserver {
 public:
  void OpBegins(const Work&) override { ++num_ops; }
  bool IsWatching() const override { return watches; }

  int64_t num_ops = 0;
  bool watches = false;
};

// The sizes of a step's micro-batches.
struct Sizes {
  int64_t sequences = 1;
  int64_t padding = 0;  // of each sequence
};

// A letter for each step: by [k]ernel, [r]ecorded and given, or [g]iven again.
struct Outcome {
  std::string ways;
  std::vector<std::vector<double>> reports;
  std::vector<std::vector<std::byte>> state;
  int64_t peak_bytes = 0;
};

// Steps of random tokens on the test's device.
class TrainingRun {
 public:
  TrainingRun(const RunConfig& config, Communicator& world) {
    Context::Options resources = test::OnTestDevice(Context::Options());
    CHECK(resources.accelerator != nullptr) << "a test of a device";
    resources.observer = &counter;
    auto created = StepEngine::Create(config, TinyDataset().vocab_size(), world, resources);
    CHECK(created.ok()) << created.status();
    engine = *std::move(created);
  }

  bool Step(const Sizes& sizes) {
    Accelerator& accelerator = *engine->context().accelerator();
    const std::vector<MicroBatch> batches = Batches(sizes);
    const int64_t stale = NumStaleImages();
    const int64_t waits = accelerator.num_waits(), given = accelerator.num_given();
    counter.num_ops = 0;
    const StepResult result = engine->Step(std::ssize(outcome.reports) + 1, batches);
    Note(result);
    // The step's numbers, what it reads, stale images, the step, and what is reported of it.
    const bool has_experts = !result.routing.layers.empty();
    const int64_t pieces = 1 + std::ssize(batches) + stale + 1 + (has_experts ? 2 : 1);
    if (accelerator.num_given() - given > pieces) {
      outcome.ways += 'k';
    } else {
      EXPECT_EQ(accelerator.num_given() - given, pieces) << "step " << outcome.reports.size();
      EXPECT_EQ(accelerator.num_waits() - waits, 1) << "step " << outcome.reports.size();
      outcome.ways += counter.num_ops > stale ? 'r' : 'g';
    }
    return result.updated;
  }

  void Evaluate() {
    const EvaluationOptions options = {
        .sequence_length = engine->config().train().sequence_length(),
        .micro_batch_size = 2,
        .max_tokens_per_domain = 8,
        .pipeline = engine->pipeline()};
    for (const DomainEvaluation& of_domain :
         moebius::Evaluate(engine->model(), engine->weights(), TinyDataset(), options,
                           engine->mesh(), engine->context())) {
      outcome.reports.back().push_back(of_domain.loss);
    }
  }

  // Every number of a parameter by `change`, as when a checkpoint is loaded.
  void Change(Parameter& parameter, const std::function<double(double)>& change) {
    std::vector<double> values = test::ToDoubles(parameter.value);
    for (double& value : values) value = change(value);
    const Tensor& x = parameter.value;
    Copy(test::FromValues(engine->context(), x.dtype(), x.shape(), values), x);
    ++parameter.version;
  }
  std::vector<Parameter*> parameters() { return engine->model().store().parameters(); }

  void Finish() {
    outcome.state = StateOf(engine->model(), engine->optimizer());
    outcome.peak_bytes = engine->context().arena().total().peak_bytes;
  }

  OpCounter counter;
  std::unique_ptr<StepEngine> engine;
  Outcome outcome;

 private:
  std::vector<MicroBatch> Batches(const Sizes& sizes) {
    std::vector<MicroBatch> batches;
    for (int m = 0; m < engine->pipeline().num_micro_batches; ++m) {
      std::vector<Sample> samples;
      std::vector<int64_t> index;
      for (int64_t b = 0; b < sizes.sequences; ++b) {
        index.push_back(num_samples_++);
        samples.push_back(RandomSample(index.back(), sizes.padding));
      }
      batches.push_back(
          MakeMicroBatch(samples, index, engine->micro_batch_options(), engine->context()));
    }
    return batches;
  }

  Sample RandomSample(int64_t index, int64_t padding) {
    const int64_t S = engine->config().train().sequence_length();
    const RandomStream stream(1, "samples");
    Sample sample;
    for (int64_t s = 0; s < S; ++s) {
      const auto token = [&](int64_t i) {
        return static_cast<int32_t>(
            stream.Below(static_cast<uint64_t>(index * (S + 1) + i),
                         static_cast<uint64_t>(TinyDataset().vocab_size())));
      };
      const bool counts = s < S - padding;
      sample.tokens.push_back(token(s));
      sample.labels.push_back(token(s + 1));
      sample.document_ids.push_back(counts ? static_cast<int32_t>(s / 5) : -1);
      sample.positions.push_back(static_cast<int32_t>(s));
      sample.loss_weights.push_back(counts ? 1.0f : 0.0f);
    }
    return sample;
  }

  int64_t NumStaleImages() {
    int64_t count = 0;
    for (const Parameter* parameter : parameters()) {
      for (const auto& [key, image] : parameter->images)
        count += image.version != parameter->version;
    }
    return count;
  }

  void Note(const StepResult& result) {
    std::vector<double> report = {result.loss,           result.tokens,
                                  result.gradient_norm,  result.routing.balance_loss,
                                  result.routing.z_loss, result.routing.min_margin};
    for (const auto& counts : result.routing.counts) {
      report.insert(report.end(), counts.begin(), counts.end());
    }
    outcome.reports.push_back(std::move(report));
  }

  int64_t num_samples_ = 0;
};

using Script = std::function<void(TrainingRun& run)>;

Outcome Play(RunConfig config, bool replays, const Script& script) {
  config.mutable_run()->set_replays_steps(replays);
  Outcome outcome;
  RunOnThreads(1, {.deadline = std::chrono::minutes(1)}, [&](Communicator& world) {
    TrainingRun run(config, world);
    script(run);
    run.Finish();
    outcome = std::move(run.outcome);
  });
  return outcome;
}

// Both are the same to the bit, and the first is taken in these ways. Bytes that it needs more.
int64_t ExpectSame(const RunConfig& config, const std::string& ways, const Script& script) {
  const Outcome replayed = Play(config, true, script), plain = Play(config, false, script);
  EXPECT_EQ(replayed.ways, ways);
  EXPECT_EQ(plain.ways, std::string(ways.size(), 'k'));
  EXPECT_EQ(replayed.reports, plain.reports);
  EXPECT_TRUE(replayed.state == plain.state);
  return replayed.peak_bytes - plain.peak_bytes;
}

// As small as a model of experts can be: a GPU that the CPU plays is slow.
RunConfig Config(const std::string& precision, const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> all = {"precision.compute=" + precision,
                                  "train.global_batch_size=2",
                                  "model.num_layers=1",
                                  "model.hidden_size=12",
                                  "model.num_heads=2",
                                  "model.num_kv_heads=1",
                                  "model.moe.num_experts=4",
                                  "model.moe.expert_hidden_size=12",
                                  "model.moe.num_shared_experts=0"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return TinyConfig(all);
}
RunConfig Dense(const std::string& precision) {
  RunConfig config = Config(precision);
  config.mutable_model()->clear_moe();
  config.mutable_model()->set_ffn_hidden_size(12);
  return config;
}
RunConfig Balanced(const std::string& precision, const std::string& balance) {
  return Config(precision, {"model.moe.balance={" + balance + "}"});
}
constexpr char kBiased[] = "bias_update_rate: 0.01 loss { scope: GLOBAL_BATCH weight: 0.01 } ";

Script TakeSteps(int count) {
  return [=](TrainingRun& run) {
    for (int step = 1; step <= count; ++step) EXPECT_TRUE(run.Step({}));
  };
}

TEST(Replay, OfADenseModelIsItsStep) {
  EXPECT_EQ(ExpectSame(Dense("FP32"), "krgggg", TakeSteps(6)), 0);
  EXPECT_EQ(ExpectSame(Dense("BF16"), "krgggg", TakeSteps(6)), 0);
}

TEST(Replay, OfExpertsIsTheirStep) {
  EXPECT_EQ(ExpectSame(Config("FP32"), "krgg", TakeSteps(4)), 0);
  EXPECT_EQ(ExpectSame(Config("BF16"), "krgggg", TakeSteps(6)), 0);
}

// By products that run on tensor cores, twice where the forward is computed again.
TEST(Replay, OfWideExpertsIsTheirStep) {
  const std::vector<std::string> wide = {"model.hidden_size=16", "model.moe.expert_hidden_size=16",
                                         "parallel.recompute=FULL"};
  EXPECT_EQ(ExpectSame(Config("BF16", wide), "krgg", TakeSteps(4)), 0);
}

TEST(Replay, OfEveryKindOfBalanceIsItsStep) {
  for (const std::string& balance :
       {kBiased + std::string("global_counts: PREVIOUS_STEP"),
        kBiased + std::string("global_counts: EXACT"),
        kBiased + std::string("global_counts: RUNNING"),
        std::string("loss { scope: SEQUENCE weight: 0.01 } z_loss_weight: 0.001"),
        std::string("loss { scope: MICRO_BATCH weight: 0.01 }")}) {
    SCOPED_TRACE(balance);
    ExpectSame(Balanced("FP32", balance), "krg", TakeSteps(3));
  }
}

// Which drops all images behind its update.
TEST(Replay, OfZeroStage3IsItsStep) {
  ExpectSame(Config("BF16", {"parallel.zero_stage=3"}), "krgggg", TakeSteps(6));
}

// What evaluation counts and where it lies, between any two steps but the last.
TEST(Replay, GoesOnBehindAnEvaluation) {
  ExpectSame(Balanced("BF16", kBiased), "krgggg", [](TrainingRun& run) {
    for (int step = 1; step <= 6; ++step) {
      run.Step({});
      if (step != 5) run.Evaluate();
    }
  });
}

TEST(Replay, UpdatesNothingWhereTheGradientIsNoNumber) {
  ExpectSame(Balanced("BF16", kBiased), "krgggg", [](TrainingRun& run) {
    for (int step = 1; step <= 3; ++step) EXPECT_TRUE(run.Step({}));
    Parameter& head = *run.parameters().back();
    std::vector<double> healthy = test::ToDoubles(head.value);
    run.Change(head, [](double) { return std::numeric_limits<double>::quiet_NaN(); });
    const auto state = StateOf(run.engine->model(), run.engine->optimizer());
    EXPECT_FALSE(run.Step({}));
    run.outcome.reports.back().clear();  // NaN equals nothing
    EXPECT_TRUE(StateOf(run.engine->model(), run.engine->optimizer()) == state);
    size_t i = 0;
    run.Change(head, [&](double) { return healthy[i++]; });
    for (int step = 5; step <= 6; ++step) EXPECT_TRUE(run.Step({}));
  });
}

TEST(Replay, ReadsWeightsThatWereChangedBeforeIt) {
  ExpectSame(Config("BF16"), "krgggg", [](TrainingRun& run) {
    for (int step = 1; step <= 6; ++step) {
      run.Step({});
      if (step != 1 && step != 4) continue;  // before it is recorded, and before a replay
      for (Parameter* parameter : run.parameters()) {
        run.Change(*parameter, [&](double value) { return value * 1.25; });
      }
    }
  });
}

TEST(Replay, IsOfAStepOfTheSameSizes) {
  const Sizes whole, padded = {.padding = 3}, more = {.sequences = 2};
  ExpectSame(Balanced("FP32", kBiased), "krgkgkrgkkrg", [&](TrainingRun& run) {
    for (const Sizes& sizes :
         {whole, whole, whole, padded, whole, padded, padded, padded, whole, more, more, more}) {
      run.Step(sizes);
    }
  });
}

// Where somebody has some of the memory of the recording.
TEST(Replay, IsRecordedAnewWhereItsMemoryIsTaken) {
  ExpectSame(Config("FP32"), "krgrgg", [](TrainingRun& run) {
    std::vector<Tensor> taken;
    std::vector<std::vector<double>> values;
    for (int step = 1; step <= 6; ++step) {
      run.Step({});
      for (size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(test::ToDoubles(taken[i]), values[i]);
      if (step == 5) taken.clear();
      if (step != 3) continue;
      for (int64_t size = 16; size <= 1 << 14; size *= 2) {
        values.emplace_back(size, static_cast<double>(size));
        taken.push_back(
            test::FromValues(run.engine->context(), DType::kF32, {size}, values.back()));
      }
    }
  });
}

TEST(Replay, IsRecordedAnewWhereImagesStandElsewhere) {
  ExpectSame(Config("BF16"), "krgrgg", [](TrainingRun& run) {
    std::vector<Tensor> taken;
    for (int step = 1; step <= 6; ++step) {
      run.Step({});
      if (step != 3) continue;
      for (Parameter* parameter : run.parameters()) {
        for (auto& [key, image] : parameter->images) {
          taken.push_back(image.tensor);
          const Tensor& old = taken.back();
          image = {run.engine->context().Empty(old.dtype(), old.shape(), "weight_image"), -1};
        }
      }
      EXPECT_FALSE(taken.empty());
    }
  });
}

TEST(Replay, IsNotTakenWhileSomebodyWatches) {
  ExpectSame(Config("FP32"), "krgkgkg", [](TrainingRun& run) {
    for (int step = 1; step <= 7; ++step) {
      run.counter.watches = step == 4;
      run.engine->set_records_margins(step == 6);
      run.Step({});
    }
  });
}

}  // namespace
}  // namespace moebius
