// The file of a trace, in the Chrome trace event format (JSON; "Trace Event Format", Google, 2016):
// chrome://tracing and ui.perfetto.dev open it. A rank is a process of it. Row 0 of a process is
// the rank's own thread: steps, phases, actions of the pipeline, ops, starts and waits of
// exchanges, each inside another. The other rows are exchanges under way, from their start until
// they were done; two that overlap have two rows.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/files.h"
#include "core/base/status.h"
#include "train/trace/trace_recorder.h"

namespace moebius {

// The events of a rank of the world, one a line, without brackets around them. Times are those of
// its clock, less the origin; nanoseconds here, microseconds in the file.
std::string EventsJson(const TraceRecorder& recorder, int rank, int64_t origin_ns);

// InvalidArgument, if a trace cannot be written to `path`, says why. Changes nothing.
absl::Status CheckTracePath(const std::string& path);

// Writes a file that appears under its name when it is whole.
class TraceFile {
 public:
  static absl::StatusOr<TraceFile> Create(const std::string& path);
  TraceFile(TraceFile&& other) = default;
  ~TraceFile();  // what was not committed is gone

  absl::Status Add(absl::string_view events);  // EventsJson of one rank
  absl::Status Commit();

 private:
  TraceFile(std::string path, OutputFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  OutputFile file_;
  bool is_empty_ = true;
};

}  // namespace moebius
