// moebius train: from a config to a finished run.
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "configs/differences.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/files.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/open_cuda.h"
#include "launcher/commands.h"
#include "launcher/device.h"
#include "launcher/exit_codes.h"
#include "launcher/failure_report.h"
#include "launcher/prepare_data.h"
#include "launcher/ranks.h"
#include "launcher/signals.h"
#include "train/agreement.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/pipeline_layout.h"
#include "train/trace/trace_file.h"
#include "train/trainer.h"

namespace moebius {
namespace {

struct TrainFlags {
  ConfigFlags config;
  int ranks = 1;
  std::string checkpoint;
  std::string trace;
  int64_t trace_steps = 3;
};

// What a run that resumes may not change, against the config file it was started with.
absl::Status CheckSameResults(const RunConfig& config, const std::string& started_with) {
  ASSIGN_OR_RETURN(const RunConfig before, LoadRunConfig(started_with));
  const std::vector<std::string> differences = ResultDifferences(before, config);
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: %s: differs from the run that is resumed, and would change its results; use the old "
      "value or begin another run",
      started_with, differences[0]));
}

// Imported models are checkpoints of step 0, which any run may start from.
absl::Status CheckResume(const RunConfig& config, const RunPaths& paths,
                         const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const auto checkpoints, FindCheckpoints(paths.checkpoints()));
  if (!checkpoints.empty() && std::filesystem::exists(paths.config())) {
    RETURN_IF_ERROR(CheckSameResults(config, paths.config()));
  }
  if (checkpoint.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(checkpoint));
  return reader.step() == 0 ? absl::OkStatus()
                            : CheckSameResults(config, checkpoint + "/config.textproto");
}

double TotalPeakFlops(Session& session) {
  const DType compute = session.model().policy().compute;
  const Accelerator* accelerator = session.context().accelerator();
  double peak = accelerator != nullptr ? accelerator->PeakFlops(compute)
                                       : cpu::PeakFlops(compute, session.context());
  session.mesh().world().AllReduce(std::span(&peak, 1)).Wait();
  return peak;
}

std::string DeviceSentence(const DeviceChoice& choice, const Context& context,
                           const DeviceWorld& devices) {
  if (context.accelerator() == nullptr) return choice.sentence;
  return absl::StrCat(choice.sentence, ": ", context.accelerator()->Describe(),
                      devices.sentence.empty() ? "" : "; ", devices.sentence);
}

// The run of one rank, from opening the data to the last checkpoint.
absl::StatusOr<TrainOutcome> TrainRank(const RunConfig& config, const TrainFlags& flags,
                                       const DeviceChoice& device, RunDirectory* run,
                                       TraceRecorder* trace, Communicator& world,
                                       const RankCores& cores) {
  auto dataset = Dataset::Open(config.data().dir());
  RETURN_IF_ERROR(Agree(world, dataset.status()));
  const auto resources = OnDevice(device, CudaPluginPath(), cores.index, world,
                                  {.num_threads = cores.num_threads,
                                   .cores = cores.cores,
                                   .device_budget_bytes = config.run().device_memory_bytes(),
                                   .host_budget_bytes = config.run().host_memory_bytes(),
                                   .observer = trace});
  RETURN_IF_ERROR(Agree(world, resources.status()));
  const DeviceWorld devices = ConnectDevices(*resources, CudaPluginPath(), world);
  auto session = Session::Create(config, devices.world != nullptr ? *devices.world : world,
                                 *dataset, *resources, trace);
  RETURN_IF_ERROR(Agree(world, session.status()));

  const bool first_here = world.rank() == 0 || flags.ranks == 1;  // threads share the signals
  auto trainer = Trainer::Create(
      {.checkpoint_directory = RunPaths{config.run().dir()}.checkpoints(),
       .resume_from = flags.checkpoint,
       .config_text = PrintConfig(config),
       .device = DeviceSentence(device, (*session)->context(), devices),
       .peak_flops = TotalPeakFlops(**session),
       .run = run,
       .take_request = [=] { return first_here ? TakeRequest() : Request::kNone; },
       .trace = {.path = flags.trace, .num_steps = flags.trace_steps, .recorder = trace}},
      **session, *dataset);
  RETURN_IF_ERROR(Agree(world, trainer.status()));

  const absl::StatusOr<TrainOutcome> outcome = (*trainer)->Run();
  const absl::Status failure = Agree(world, outcome.status());
  Recorder* recorder = (*trainer)->recorder();
  if (failure.ok() && recorder != nullptr) {
    const bool stopped = *outcome == TrainOutcome::kStopped;
    RETURN_IF_ERROR(recorder->SetStatus(stopped ? "stopped" : "done", (*session)->steps_done(), "",
                                        stopped ? kExitStopped : kExitDone));
  }
  if (!failure.ok() && recorder != nullptr) {
    recorder->Message(absl::StrCat("failed: ", failure.message()));
  }
  // Whatever breaks once training has begun is a failed run, not bad input.
  if (!failure.ok()) return absl::InternalError(failure.message());
  return outcome;
}

// status.json says that this attempt has begun; steps and checkpoints are those of the last one.
absl::Status RecordStart(RunDirectory& run) {
  RunStatus status = ReadRunStatus(run.paths()).value_or(RunStatus{});
  status.state = "running";
  status.exit_reason.clear();
  status.exit_code.reset();
  return run.WriteStatus(status);
}

absl::StatusOr<TrainOutcome> Train(const TrainFlags& flags) {
  ASSIGN_OR_RETURN(const RunConfig config, flags.config.Load());
  RETURN_IF_ERROR(CheckRanks(flags.ranks));
  RETURN_IF_ERROR(ValidateLayout(config, WorldSize(flags.ranks)));
  RETURN_IF_ERROR(CheckPipeline(config, WorldSize(flags.ranks)));
  ASSIGN_OR_RETURN(const DeviceChoice device, ChooseDevice(config, CudaPluginPath()));
  if (flags.config.OnlyChecks()) return TrainOutcome::kDone;

  // The first process prepares what all share, before MPI starts.
  const RunPaths paths{config.run().dir()};
  std::optional<RunDirectory> run;
  if (SpeaksForAll()) {
    ASSIGN_OR_RETURN(run, RunDirectory::Open(paths.root));
    RETURN_IF_ERROR(CheckResume(config, paths, flags.checkpoint));
    if (!flags.trace.empty()) RETURN_IF_ERROR(CheckTracePath(flags.trace));
    RETURN_IF_ERROR(run->WriteConfig(PrintConfig(config)));
    RETURN_IF_ERROR(PrepareData(config));
  }
  InstallSignalHandlers();
  if (run) RETURN_IF_ERROR(RecordStart(*run));
  const auto report = std::make_shared<FailureReport>(paths);
  SetLastWords(
      [report](const std::string& sentence, int exit_code) { report->Write(sentence, exit_code); });

  TraceRecorders traces;
  const auto trace_of = [&](int rank) { return flags.trace.empty() ? nullptr : traces.Of(rank); };
  const auto deadline = std::chrono::duration<double>(config.run().deadline_seconds());
  TrainOutcome outcome = TrainOutcome::kDone;
  const absl::Status status = RunRanks(
      {.thread_ranks = flags.ranks,
       .threads_per_rank = config.run().threads_per_rank(),
       .wait = {.deadline = std::chrono::duration_cast<std::chrono::milliseconds>(deadline),
                .stop_requested = StopRequested,
                .on_stuck =
                    [report](int rank, const std::string& sentence) {
                      report->WriteStuck(rank, sentence);
                    },
                .on_start = [report](int rank, auto board) { report->Add(rank, board); },
                .observer_of = trace_of},
       .board_directory = paths.root + "/board"},
      [&](Communicator& world, const RankCores& cores) -> absl::Status {
        RunDirectory* records = world.rank() == 0 ? &*run : nullptr;
        const auto result =
            TrainRank(config, flags, device, records, trace_of(world.rank()), world, cores);
        const bool speaks = world.rank() == 0 || flags.ranks == 1;  // threads: one of them
        if (result.ok() && speaks) outcome = *result;
        return result.status();
      });
  if (status.ok()) return outcome;
  if (run) RecordFailure(paths, std::string(status.message()), ExitCodeOf(status));
  return status;
}

}  // namespace

void AddTrainCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "train a model; the same command again resumes");
  flags->config.AddTo(*command);
  command->add_option("--ranks", flags->ranks, "ranks as threads of this process")
      ->check(CLI::Range(1, 1024));
  command->add_option("--checkpoint", flags->checkpoint, "resume from this checkpoint");
  auto* trace = command->add_option(
      "--trace", flags->trace,
      "write where the time of some steps goes, for chrome://tracing and ui.perfetto.dev");
  command->add_option("--trace_steps", flags->trace_steps, "steps to trace (default 3)")
      ->check(CLI::Range(1, 1000))
      ->needs(trace);
  command->callback([flags, exit_code] {
    const absl::StatusOr<TrainOutcome> outcome = Train(*flags);
    *exit_code = outcome.ok() && *outcome == TrainOutcome::kStopped ? kExitStopped
                                                                    : Report(outcome.status());
  });
}

}  // namespace moebius
