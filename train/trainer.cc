#include "train/trainer.h"

#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "train/agreement.h"
#include "train/training_state.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool IsDue(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const Options& options, Session& session,
                                                         const Dataset& dataset) {
  std::unique_ptr<Trainer> trainer(new Trainer(options, session, dataset));
  RETURN_IF_ERROR(AgreeOn(trainer->Resume(), trainer->Ranks()));
  RETURN_IF_ERROR(AgreeOn(trainer->StartRecords(), trainer->Ranks()));
  if (!options.device.empty()) trainer->Say(options.device);
  return trainer;
}

Trainer::Trainer(const Options& options, Session& session, const Dataset& dataset)
    : options_(options), session_(session), dataset_(dataset) {}

RankAgreement Trainer::Ranks() {
  Communicator& world = session_.mesh().world();
  return {.rank = world.rank(),
          .world_size = world.size(),
          .max =
              [&world](int64_t value) {
                world.AllReduceMax(std::span(&value, 1)).Wait();
                return value;
              },
          .agree = [&world](const absl::Status& own) { return Agree(world, own); }};
}

absl::Status Trainer::Resume() {
  std::optional<CheckpointReader> checkpoint;
  if (!options_.resume_from.empty()) {
    ASSIGN_OR_RETURN(checkpoint, CheckpointReader::Open(options_.resume_from));
    RETURN_IF_ERROR(checkpoint->Verify());
  } else {
    ASSIGN_OR_RETURN(auto newest, OpenNewest(options_.checkpoint_directory, Ranks()));
    if (newest) {
      for (const std::string& warning : newest->warnings) Say("warning: " + warning);
      checkpoint = std::move(newest->reader);
    }
  }
  if (!checkpoint) return absl::OkStatus();
  RETURN_IF_ERROR(RestoreTraining(*checkpoint, session_));
  const auto state = [&](const char* name) {
    const auto found = checkpoint->state().find(name);
    return found == checkpoint->state().end() ? 0 : found->second;
  };
  tokens_ = state("tokens");
  bad_steps_ = state("bad_steps");
  Say(absl::StrFormat("resumed from %s", checkpoint->path()));
  return absl::OkStatus();
}

absl::Status Trainer::StartRecords() {
  ASSIGN_OR_RETURN(writer_,
                   CheckpointWriter::Create(
                       {.directory = options_.checkpoint_directory,
                        .resumed_step = session_.steps_done(),
                        .keep_last = static_cast<int>(session_.config().checkpoint().keep_last()),
                        .ranks = Ranks()},
                       &session_.context().arena(MemoryTier::kHost)));
  if (options_.run == nullptr) return absl::OkStatus();
  const int64_t step = session_.steps_done();
  ASSIGN_OR_RETURN(recorder_,
                   Recorder::Create(*options_.run, step, session_.config().train().num_steps()));
  if (step > 0) recorder_->Saved(CheckpointName(step));
  return recorder_->SetStatus("running", step);
}

absl::StatusOr<TrainOutcome> Trainer::Run() {
  const RunConfig& config = session_.config();
  const int64_t num_steps = config.train().num_steps();
  if (options_.trace.recorder != nullptr) {
    tracer_ = std::make_unique<StepTracer>(options_.trace, session_.mesh().world(),
                                           session_.steps_done() + 1, num_steps);
  }
  while (session_.steps_done() < num_steps) {
    RETURN_IF_ERROR(AgreeOn(TakeStep(), Ranks()));
    const int64_t step = session_.steps_done();
    const bool last = step >= num_steps;
    if (tracer_ != nullptr && tracer_->IsComplete()) WriteTrace();
    if (last || IsDue(step, config.train().eval_interval_steps())) {
      RETURN_IF_ERROR(AgreeOn(Evaluate(), Ranks()));
    }
    const Request request = AgreedRequest();
    if (last || request != Request::kNone || IsDue(step, config.checkpoint().interval_steps())) {
      RETURN_IF_ERROR(Save());
    }
    if (const auto saved = writer_->Poll()) ReportSaved(*saved);
    if (request == Request::kStop && !last) {
      RETURN_IF_ERROR(FinishSaving());
      if (tracer_ != nullptr && !tracer_->is_written()) WriteTrace();
      return TrainOutcome::kStopped;
    }
  }
  RETURN_IF_ERROR(FinishSaving());
  if (tracer_ != nullptr && !tracer_->is_written()) WriteTrace();  // no step was left
  return TrainOutcome::kDone;
}

absl::Status Trainer::TakeStep() {
  if (tracer_ != nullptr) tracer_->BeginStep(session_.steps_done() + 1);
  const auto start = Clock::now();
  const StepResult result = session_.Step();
  if (tracer_ != nullptr) tracer_->EndStep();
  tokens_ += static_cast<int64_t>(result.tokens);
  SayRetries(result);
  RETURN_IF_ERROR(Record(result, SecondsSince(start)));
  return CheckStep(result);
}

void Trainer::SayRetries(const StepResult& result) {
  if (result.num_retries == 0) return;
  retries_ += result.num_retries;
  Say(absl::StrFormat(
      "step %d: exchanges had no room for some rows under parallel.exchange_capacity %g; the step "
      "was taken again, and from now on it is %g",
      session_.steps_done(), result.old_exchange_capacity, result.exchange_capacity));
}

absl::Status Trainer::CheckStep(const StepResult& result) {
  bad_steps_ = result.updated ? 0 : bad_steps_ + 1;
  if (bad_steps_ <= session_.config().train().max_bad_steps()) return absl::OkStatus();
  return absl::InternalError(
      absl::StrFormat("step %d: loss %g and gradient norm %g: %d steps in a row were not finite "
                      "(train.max_bad_steps: %d)",
                      session_.steps_done(), result.loss, result.gradient_norm, bad_steps_,
                      session_.config().train().max_bad_steps()));
}

absl::Status Trainer::Record(const StepResult& result, double step_seconds) {
  const TrainConfig& train = session_.config().train();
  const int64_t step = session_.steps_done();
  const bool logged = IsDue(step, train.log_interval_steps()) || step == train.num_steps();
  if (recorder_ == nullptr || !logged) return absl::OkStatus();
  const double flops_per_token =
      3 * session_.model().spec().ForwardFlopsPerToken(train.sequence_length());
  StepMetrics metrics{
      .step = step,
      .loss = result.loss,
      .balance_loss = result.routing.balance_loss,
      .z_loss = result.routing.z_loss,
      .grad_norm = result.gradient_norm,
      .lr = session_.learning_rate(),
      .tokens = tokens_,
      .tokens_per_second = result.tokens / step_seconds,
      .step_ms = 1e3 * step_seconds,
      .mfu = options_.peak_flops > 0
                 ? flops_per_token * result.tokens / step_seconds / options_.peak_flops
                 : 0,
      .peak_bytes = session_.context().arena().total().peak_bytes,
      .host_peak_bytes = session_.context().arena(MemoryTier::kHost).total().peak_bytes,
      .checkpoint_stall_ms = std::exchange(stall_ms_, 0),
      .retries = std::exchange(retries_, 0)};
  for (size_t i = 0; i < result.routing.layers.size(); ++i) {
    const std::vector<double>& counts = result.routing.counts[i];
    metrics.expert_load.push_back(
        {static_cast<int>(result.routing.layers[i]), {counts.begin(), counts.end()}});
  }
  RETURN_IF_ERROR(recorder_->Step(metrics));
  return recorder_->SetStatus("running", step);
}

absl::Status Trainer::Evaluate() {
  const std::vector<DomainEvaluation> evaluations = session_.Evaluate();
  if (recorder_ == nullptr) return absl::OkStatus();
  std::vector<EvalMetrics> metrics;
  for (const DomainEvaluation& e : evaluations) {
    metrics.push_back({session_.steps_done(), e.domain, e.loss, e.bits_per_byte});
  }
  return recorder_->Evaluation(metrics);
}

Request Trainer::AgreedRequest() {
  const auto own = static_cast<int64_t>(options_.take_request());
  return static_cast<Request>(Ranks().max(own));
}

absl::Status Trainer::Save() {
  // Between two agreements no rank may leave before what follows with the others.
  RETURN_IF_ERROR(AgreeOn(recorder_ != nullptr ? recorder_->Sync() : absl::OkStatus(), Ranks()));
  const auto start = Clock::now();
  if (writer_->busy()) ReportSaved(writer_->Wait());
  const Tokenizer& tokenizer = dataset_.tokenizer();
  writer_->Save({.step = session_.steps_done(),
                 .state = {{"tokens", tokens_}, {"bad_steps", bad_steps_}},
                 .files = {{"config.textproto", options_.config_text},
                           {tokenizer.file_name(), tokenizer.file_content()}},
                 .tensors = TrainingTensors(session_)});
  stall_ms_ += 1e3 * SecondsSince(start);
  return absl::OkStatus();
}

absl::Status Trainer::FinishSaving() {
  if (writer_->busy()) ReportSaved(writer_->Wait());
  return save_error_;
}

void Trainer::ReportSaved(const CheckpointWriter::Result& result) {
  save_error_ = result.status;
  if (!result.status.ok()) {
    Say(absl::StrFormat("warning: step %d was not saved: %s", result.step,
                        result.status.message()));
    return;
  }
  if (recorder_ != nullptr) recorder_->Saved(CheckpointName(result.step));
}

// A trace that cannot be written is no reason to stop training.
void Trainer::WriteTrace() {
  const auto lines = tracer_->Write();
  if (!lines.ok()) return Say(absl::StrFormat("warning: trace: %s", lines.status().message()));
  for (const std::string& line : *lines) Say(line);
}

void Trainer::Say(const std::string& line) {
  if (recorder_ != nullptr) {
    recorder_->Message(line);
  } else if (session_.mesh().world().rank() == 0) {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

}  // namespace moebius
