#include "train/recorder.h"

#include <cstdio>
#include <utility>

namespace moebius {

absl::StatusOr<std::unique_ptr<Recorder>> Recorder::Create(RunDirectory& run, int64_t resumed_step,
                                                           int64_t num_steps) {
  const RunPaths& paths = run.paths();
  ASSIGN_OR_RETURN(MetricsLog metrics, MetricsLog::Open(paths.metrics(), resumed_step));
  ASSIGN_OR_RETURN(TensorBoardWriter tensorboard,
                   TensorBoardWriter::Create(paths.tensorboard(), run.attempt(), resumed_step));
  ASSIGN_OR_RETURN(std::unique_ptr<RunLog> log, RunLog::Open(paths.log(0)));
  return std::unique_ptr<Recorder>(
      new Recorder(run, std::move(metrics), std::move(tensorboard), std::move(log), num_steps));
}

Recorder::Recorder(RunDirectory& run, MetricsLog metrics, TensorBoardWriter tensorboard,
                   std::unique_ptr<RunLog> log, int64_t num_steps)
    : run_(run),
      metrics_(std::move(metrics)),
      tensorboard_(std::move(tensorboard)),
      log_(std::move(log)),
      console_(num_steps) {
  status_.num_steps = num_steps;
}

absl::Status Recorder::Step(const StepMetrics& metrics) {
  Message(console_.Line(metrics));
  RETURN_IF_ERROR(metrics_.Write(metrics));
  return tensorboard_.Write(metrics);
}

absl::Status Recorder::Evaluation(const std::vector<EvalMetrics>& domains) {
  double mean = 0;
  for (const EvalMetrics& domain : domains) {
    Message(absl::StrFormat("eval %-16s loss %.4f | %.4f bits/byte", domain.domain, domain.loss,
                            domain.bits_per_byte));
    RETURN_IF_ERROR(metrics_.Write(domain));
    RETURN_IF_ERROR(tensorboard_.Write(domain));
    mean += domain.bits_per_byte / static_cast<double>(domains.size());
  }
  Message(absl::StrFormat("eval %-16s %.4f bits/byte, mean of %d domains", "all", mean,
                          domains.size()));
  return absl::OkStatus();
}

void Recorder::Message(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  log_->Line(line);
}

absl::Status Recorder::SetStatus(const std::string& state, int64_t step, const std::string& reason,
                                 std::optional<int> exit_code) {
  status_.state = state;
  status_.step = step;
  status_.exit_reason = reason;
  status_.exit_code = exit_code;
  return run_.WriteStatus(status_);
}

}  // namespace moebius
