// A run from its first or last saved step to its end: steps, records, evaluations, checkpoints,
// requests from outside. One object a rank, all in step.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/base/status.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/recorder.h"
#include "train/request.h"
#include "train/session.h"
#include "train/trace/step_tracer.h"

namespace moebius {

enum class TrainOutcome { kDone, kStopped };  // kStopped: on request, after saving

class Trainer {
 public:
  struct Options {
    std::string checkpoint_directory;
    std::string resume_from;      // a checkpoint to start from; empty: the newest good one, if any
    std::string config_text;      // goes along in checkpoints
    std::string device = {};      // for the log: what computes, and why
    double peak_flops = 0;        // of all ranks together, for MFU; 0: not known
    RunDirectory* run = nullptr;  // on rank 0, else null
    std::function<Request()> take_request;  // what came since the last call; may differ by rank
    TraceOptions trace = {};
  };

  // All ranks create it together: it resumes. The session and the dataset outlive the trainer.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const Options& options, Session& session,
                                                         const Dataset& dataset);

  // Trains to the last step. Results are the same on all ranks.
  absl::StatusOr<TrainOutcome> Run();

  Recorder* recorder() { return recorder_.get(); }  // null but on rank 0

 private:
  Trainer(const Options& options, Session& session, const Dataset& dataset);
  RankAgreement Ranks();
  absl::Status Resume();
  absl::Status StartRecords();

  absl::Status TakeStep();
  void SayRetries(const StepResult& result);
  absl::Status CheckStep(const StepResult& result);
  absl::Status Record(const StepResult& result, double step_seconds);
  absl::Status Evaluate();
  Request AgreedRequest();
  absl::Status Save();
  absl::Status FinishSaving();
  void WriteTrace();
  void ReportSaved(const CheckpointWriter::Result& result);
  void Say(const std::string& line);

  const Options options_;
  Session& session_;
  const Dataset& dataset_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::unique_ptr<Recorder> recorder_;  // rank 0
  std::unique_ptr<StepTracer> tracer_;  // if steps are traced
  int64_t tokens_ = 0;                  // seen in the whole run
  int64_t bad_steps_ = 0;               // in a row
  double stall_ms_ = 0;                 // waited for checkpoints since the last record
  int64_t retries_ = 0;                 // attempts at steps that were discarded since then
  absl::Status save_error_;             // of the last attempt to save
};

}  // namespace moebius
