// Writes metrics.jsonl (docs/formats/metrics.md). For one thread; rank 0 alone has one.
#pragma once

#include <string>

#include "core/base/files.h"
#include "core/base/status.h"
#include "train/metrics/metrics.h"

namespace moebius {

class MetricsLog {
 public:
  // Keeps of an existing file what belongs to steps up to `resumed_step`, and goes on behind it. A
  // file that needs repair is replaced as a whole or stays as it was.
  static absl::StatusOr<MetricsLog> Open(const std::string& path, int64_t resumed_step);

  // A line each, visible to readers at once.
  absl::Status Write(const StepMetrics& metrics);
  absl::Status Write(const EvalMetrics& metrics);

  // Flushes to disk. Call it before the checkpoint of a step is saved, so that a power cut does not
  // leave a checkpoint whose steps are not on record.
  absl::Status Sync() { return file_.Sync(); }

 private:
  explicit MetricsLog(OutputFile file) : file_(std::move(file)) {}

  OutputFile file_;
};

}  // namespace moebius
