// Everything that a run says about itself while it goes on: metrics.jsonl, TensorBoard, the
// progress line, status.json. Rank 0 alone has one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "train/metrics/console.h"
#include "train/metrics/metrics_log.h"
#include "train/metrics/tensorboard_writer.h"
#include "train/run_directory/run_directory.h"

namespace moebius {

class Recorder {
 public:
  // Records go on behind `resumed_step`. `run` outlives the recorder.
  static absl::StatusOr<std::unique_ptr<Recorder>> Create(RunDirectory& run, int64_t resumed_step,
                                                          int64_t num_steps);

  absl::Status Step(const StepMetrics& metrics);
  absl::Status Evaluation(const std::vector<EvalMetrics>& domains);  // prints the table
  void Message(const std::string& line);                             // console and log

  // Everything so far is on disk. Called before a checkpoint is saved.
  absl::Status Sync() { return metrics_.Sync(); }

  // status.json; `step` and what was saved last are kept up to date here.
  void Saved(const std::string& checkpoint_name) { status_.last_checkpoint = checkpoint_name; }
  absl::Status SetStatus(const std::string& state, int64_t step, const std::string& reason = "",
                         std::optional<int> exit_code = std::nullopt);

 private:
  Recorder(RunDirectory& run, MetricsLog metrics, TensorBoardWriter tensorboard,
           std::unique_ptr<RunLog> log, int64_t num_steps);

  RunDirectory& run_;
  MetricsLog metrics_;
  TensorBoardWriter tensorboard_;
  std::unique_ptr<RunLog> log_;
  StepConsole console_;
  RunStatus status_;
};

}  // namespace moebius
