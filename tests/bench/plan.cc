// What `moebius plan` predicts beside what this machine measures, the machine being calibrated
// right before each run: seconds of a step, and the most bytes of a rank. Ranks are threads, tokens
// are random. Exit code 1 if a step is more than 25% off, or memory more than 10% and the MiB that
// the kernels of a CPU take for themselves.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/check.h"
#include "parallel/thread_communicator.h"
#include "train/planner/calibrate.h"
#include "train/planner/random_batches.h"
#include "train/planner/step_time.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMiB = 1 << 20;
constexpr double kTimeTolerance = 0.25, kMemoryTolerance = 0.1;
constexpr int64_t kVocabulary = 4096;  // where the config names none

struct Cell {
  const char* recipe;
  int ranks;
  std::vector<std::string> overrides;  // the table leaves out the first word of their paths
};

const std::vector<Cell>& Cells() {
  static const auto* const cells = new std::vector<Cell>{
      {"tiny", 1, {}},
      {"tiny", 2, {"parallel.expert_size=2"}},
      {"quickstart", 1, {"parallel.expert_size=1"}},
      {"quickstart", 2, {}},
      {"quickstart", 2, {"precision.compute=BF16"}},
      {"quickstart", 2, {"parallel.tensor_size=2", "model.num_kv_heads=2"}},
      {"reference_step", 1, {}},
      {"reference_step", 1, {"precision.compute=BF16", "parallel.recompute=FULL"}},
      {"reference_step", 2, {"parallel.zero_stage=1", "train.micro_batch_size=4"}},
      {"reference_step",
       2,
       {"parallel.expert_size=2", "precision.compute=BF16", "train.micro_batch_size=4"}},
      {"reference_step", 2, {"parallel.pipeline_size=2", "train.micro_batch_size=1"}},
      {"reference_step", 2, {"parallel.zero_stage=3", "train.micro_batch_size=2"}},
  };
  return *cells;
}

struct Measured {
  double seconds = 0;
  int64_t peak_bytes = 0;
};

// Of the slowest rank a step, the mean of some; of the fullest rank.
Measured Measure(const RunConfig& config, int ranks) {
  constexpr int kFewest = 6;
  constexpr std::chrono::duration<double> kShortest{1.5};
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  Measured measured;
  std::mutex mutex;
  RunOnThreads(ranks, [&](Communicator& world) {
    const auto engine =
        StepEngine::Create(config, kVocabulary, world, {.num_threads = std::max(1, cores / ranks)});
    CHECK(engine.ok()) << engine.status();
    const std::vector<MicroBatch> batches = RandomBatches(**engine);
    double total = 0;
    int num_steps = -1;  // the first one warms up
    for (int64_t step = 1; num_steps < kFewest || total < kShortest.count(); ++step) {
      world.Barrier().Wait();
      const auto start = Clock::now();
      (*engine)->Step(step, batches);
      std::vector<double> time = {std::chrono::duration<double>(Clock::now() - start).count()};
      world.AllReduceMax(std::span(time)).Wait();
      if (++num_steps > 0) total += time[0];
    }
    const std::lock_guard lock(mutex);
    measured.seconds = total / num_steps;
    measured.peak_bytes =
        std::max(measured.peak_bytes, (*engine)->context().arena().total().peak_bytes);
  });
  return measured;
}

std::string NameOf(const Cell& cell) {
  std::string name = cell.recipe;
  for (const std::string& override : cell.overrides) {
    name += " " + override.substr(override.find('.') + 1);
  }
  return name;
}

bool Run(const Cell& cell) {
  std::vector<std::string> overrides = cell.overrides;
  overrides.push_back("optimizer.warmup_steps=0");
  const auto config =
      LoadRunConfig(absl::StrFormat("configs/recipes/%s.textproto", cell.recipe), overrides);
  CHECK(config.ok()) << config.status();
  CHECK(ValidateLayout(*config, cell.ranks).ok()) << NameOf(cell);
  const auto cluster =
      Calibrate({.compute = config->precision().compute(), .num_ranks = cell.ranks});
  CHECK(cluster.ok()) << cluster.status();
  const auto cost = CostModel::Create(*cluster, config->precision().compute());
  CHECK(cost.ok()) << cost.status();
  const auto plan = PlanStep(*config, kVocabulary, cell.ranks, *cost);
  CHECK(plan.ok()) << plan.status();
  const Measured measured = Measure(*config, cell.ranks);

  const double time_error = plan->seconds / measured.seconds - 1;
  const auto predicted_bytes = static_cast<double>(plan->stages[plan->fullest_stage].memory.peak);
  const auto measured_bytes = static_cast<double>(measured.peak_bytes);
  const double memory_error = predicted_bytes / measured_bytes - 1;
  std::printf("| %s | %d | %.2f | %.2f | %+.0f%% | %.1f | %.1f | %+.1f%% |\n", NameOf(cell).c_str(),
              cell.ranks, 1e3 * plan->seconds, 1e3 * measured.seconds, 100 * time_error,
              predicted_bytes / kMiB, measured_bytes / kMiB, 100 * memory_error);
  std::fflush(stdout);
  return std::abs(time_error) <= kTimeTolerance &&
         std::abs(predicted_bytes - measured_bytes) <= kMemoryTolerance * measured_bytes + kMiB;
}

int Main() {
  std::printf(
      "| step | ranks | predicted ms | measured ms | error | predicted MiB | measured MiB | error "
      "|\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  bool all_close = true;
  for (const Cell& cell : Cells()) all_close &= Run(cell);
  return all_close ? 0 : 1;
}

}  // namespace
}  // namespace moebius

int main() { return moebius::Main(); }
