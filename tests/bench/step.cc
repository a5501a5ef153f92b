// Whole training steps of a config in this process, beside what the machine can do, which is
// measured in the same run: step time, tokens a second, MFU, the update, memory, and each op's
// share of the limit that applies to it. Tokens are random, so the data need not be prepared.
//   bazel run -c opt //tests/bench:step -- --config configs/recipes/reference_step.textproto
// Ranks are threads, pinned as those of `moebius train --ranks N`. With run.device: CUDA they
// compute on the GPUs of the plugin beside this program. Exit codes are those of moebius.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "configs/validate.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/open_cuda.h"
#include "launcher/commands.h"
#include "launcher/device.h"
#include "launcher/exit_codes.h"
#include "launcher/ranks.h"
#include "tests/bench/device.h"
#include "tests/bench/machine.h"
#include "tests/bench/step_clock.h"
#include "tests/bench/step_report.h"
#include "train/pipeline_layout.h"
#include "train/planner/random_batches.h"
#include "train/step_engine.h"

namespace moebius {
namespace {

struct StepFlags {
  ConfigFlags config;
  std::string precision;  // empty: the config's
  int ranks = 1;
  int threads = 0;  // of a rank; 0: as the config says
  int steps = 10, warmup = 3;
  std::string output = "text";
};

// Values of each rank, the largest or the sum of all.
std::vector<double> Largest(std::vector<double> values, Communicator& world) {
  world.AllReduceMax(std::span(values)).Wait();
  return values;
}
double Largest(double value, Communicator& world) { return Largest(std::vector{value}, world)[0]; }
double Sum(double value, Communicator& world) {
  world.AllReduce(std::span(&value, 1)).Wait();
  return value;
}

// In a context of its own, so that its arrays are no part of the step's memory.
Limits LimitsOfRank(Communicator& world, Context::Options resources) {
  resources.device_budget_bytes = resources.host_budget_bytes = 0;
  Context context(resources);
  world.Barrier().Wait();
  return MeasureLimits(context);
}

class RankBench {
 public:
  RankBench(const StepFlags& flags, StepEngine& engine, StepClock& clock, Communicator& world)
      : flags_(flags), engine_(engine), clock_(clock), world_(world) {}

  void Run(StepMeasurement* measured) {
    const std::vector<MicroBatch> batches = RandomBatches(engine_);
    int64_t step = 0;
    for (int i = 0; i < flags_.warmup; ++i) engine_.Step(++step, batches);
    const bool apart = engine_.context().accelerator() != nullptr;
    for (int i = 0; i < flags_.steps; ++i) {
      const StepSeconds seconds =
          TimeStep(++step, batches, apart ? Times::kStep : Times::kStepAndOps, measured);
      measured->step_seconds.push_back(seconds.step);
      measured->before_update_seconds.push_back(seconds.step - seconds.update);
    }
    measured->ops_seconds = measured->step_seconds;
    if (apart) TimePartsApart(step, batches, measured);
    for (int i = 0; i < flags_.steps; ++i) TimeUpdate(measured);
    for (auto* seconds :
         {&measured->step_seconds, &measured->before_update_seconds, &measured->update_seconds}) {
      *seconds = Largest(std::move(*seconds), world_);
    }
    Describe(measured);
  }

 private:
  using Times = StepClock::Times;

  StepSeconds TimeStep(int64_t step, const std::vector<MicroBatch>& batches, Times what,
                       StepMeasurement* measured) {
    world_.Barrier().Wait();
    clock_.Start(what);
    const StepResult result = engine_.Step(step, batches);
    const StepSeconds seconds = clock_.Stop();
    CHECK(result.updated) << "loss " << result.loss << ", norm " << result.gradient_norm;
    measured->tokens = result.tokens;
    return seconds;
  }

  // Of other steps behind `step`.
  void TimePartsApart(int64_t step, const std::vector<MicroBatch>& batches,
                      StepMeasurement* measured) {
    for (double& before_update : measured->before_update_seconds) {
      const StepSeconds seconds = TimeStep(++step, batches, Times::kStepAndUpdate, measured);
      before_update = seconds.step - seconds.update;
    }
    measured->ops_seconds = {TimeStep(++step, batches, Times::kStepAndOps, measured).step};
  }

  // With the gradients of the last step.
  void TimeUpdate(StepMeasurement* measured) {
    world_.Barrier().Wait();
    measured->update_seconds.push_back(
        SecondsPerCall(engine_.context(), 1, [&] { engine_.optimizer().Step(); }));
  }

  void Describe(StepMeasurement* measured) {
    Context& context = engine_.context();
    const auto peak = [&](MemoryTier tier) {
      return Largest(static_cast<double>(context.arena(tier).total().peak_bytes), world_);
    };
    measured->flops =
        3 * measured->tokens *
        engine_.model().spec().ForwardFlopsPerToken(engine_.config().train().sequence_length());
    measured->update_bytes = Sum(clock_.update_bytes(), world_);
    measured->device_peak_bytes = peak(MemoryTier::kDevice);
    measured->host_peak_bytes = peak(MemoryTier::kHost);
    measured->ops = clock_.ops();
  }

  const StepFlags& flags_;
  StepEngine& engine_;
  StepClock& clock_;
  Communicator& world_;
};

std::string DeviceOf(const Context::Options& resources) {
  if (resources.accelerator != nullptr) return resources.accelerator->Describe();
  return absl::StrCat(ProcessorName(), ", ", cpu::InstructionSet());
}

absl::Status MeasureRank(const StepFlags& flags, const RunConfig& config,
                         const DeviceChoice& device, Communicator& world, const RankCores& cores,
                         StepMeasurement* measured) {
  ASSIGN_OR_RETURN(Context::Options resources,
                   OnDevice(device, CudaPluginPath(), cores.index, world,
                            {.num_threads = cores.num_threads,
                             .cores = cores.cores,
                             .device_budget_bytes = config.run().device_memory_bytes(),
                             .host_budget_bytes = config.run().host_memory_bytes()}));
  const Limits limits = LimitsOfRank(world, resources);
  StepClock clock(limits, resources.accelerator.get());
  resources.observer = &clock;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<StepEngine> engine,
      StepEngine::Create(config, TokenizerVocabSize(config.data().tokenizer()), world, resources));
  measured->compute = ComputeDtypeOf(config);
  measured->threads_per_rank = cores.num_threads;
  measured->limits = {.fp32_flops = Sum(limits.fp32_flops, world),
                      .bf16_flops = Sum(limits.bf16_flops, world),
                      .bandwidth = Sum(limits.bandwidth, world),
                      .source = limits.source};
  measured->device = DeviceOf(resources);
  RankBench(flags, *engine, clock, world).Run(measured);
  return absl::OkStatus();
}

absl::StatusOr<RunConfig> LoadConfig(StepFlags flags) {
  if (!flags.precision.empty()) {
    flags.config.overrides.push_back(
        absl::StrCat("precision.compute=", absl::AsciiStrToUpper(flags.precision)));
  }
  if (flags.threads > 0) {
    flags.config.overrides.push_back(absl::StrCat("run.threads_per_rank=", flags.threads));
  }
  ASSIGN_OR_RETURN(const RunConfig config, flags.config.Load());
  RETURN_IF_ERROR(ValidateLayout(config, flags.ranks));
  RETURN_IF_ERROR(CheckPipeline(config, flags.ranks));
  return config;
}

absl::Status Measure(const StepFlags& flags) {
  if (WorldSize(1) > 1) {
    return absl::InvalidArgumentError(
        "step runs in a single process; start it without mpirun or srun, with --ranks");
  }
  ASSIGN_OR_RETURN(const RunConfig config, LoadConfig(flags));
  ASSIGN_OR_RETURN(const DeviceChoice device, ChooseDevice(config, CudaPluginPath()));
  if (flags.config.OnlyChecks()) return absl::OkStatus();
  StepMeasurement measured;  // by rank 0
  RETURN_IF_ERROR(
      RunRanks({.thread_ranks = flags.ranks, .threads_per_rank = config.run().threads_per_rank()},
               [&](Communicator& world, const RankCores& cores) -> absl::Status {
                 StepMeasurement own;
                 RETURN_IF_ERROR(MeasureRank(flags, config, device, world, cores, &own));
                 if (world.rank() == 0) measured = std::move(own);
                 return absl::OkStatus();
               }));
  measured.config = flags.config.file;
  measured.precision = PrecisionConfig::Compute_Name(config.precision().compute());
  measured.ranks = flags.ranks;
  const std::string text =
      flags.output == "json" ? StepJson(measured).dump(2) + "\n" : StepText(measured);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

void AddFlags(CLI::App& app, StepFlags* flags) {
  flags->config.AddTo(app);
  app.add_option("--precision", flags->precision, "fp32 or bf16; without it the config's")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--ranks", flags->ranks, "ranks as threads of this process")
      ->check(CLI::Range(1, 1024));
  app.add_option("--threads", flags->threads, "threads of a rank; without it as the config says")
      ->check(CLI::Range(1, 4096));
  app.add_option("--steps", flags->steps, "steps that are timed")->check(CLI::Range(1, 1000000));
  app.add_option("--warmup", flags->warmup, "steps before them")->check(CLI::Range(1, 1000000));
  app.add_option("-o,--output", flags->output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
}

// `bazel run` starts programs in a folder of its own.
void GoToUsersFolder() {
  const char* folder = std::getenv("BUILD_WORKING_DIRECTORY");
  std::error_code ignored;
  if (folder != nullptr) std::filesystem::current_path(folder, ignored);
}

int Main(int argc, char** argv) {
  GoToUsersFolder();
  CLI::App app("Measures whole training steps of a config beside the machine's limits.", "step");
  StepFlags flags;
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return kExitBadInput;
  }
  return Report(Measure(flags));
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { return moebius::Main(argc, argv); }
