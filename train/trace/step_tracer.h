// Which steps of a run are traced, and the file and the table that all ranks make of them together.
//
//   StepTracer tracer({.path = "trace.json", .recorder = recorder}, world, first_step, last_step);
//   tracer.BeginStep(step);
//   ...
//   tracer.EndStep();
//   if (tracer.IsComplete()) tracer.Write();
//
// Tracing begins behind two steps of this run, which allocate and warm up. A run that has not as
// many steps is traced to its end, from as few before it as that takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "parallel/communicator.h"
#include "train/trace/trace_recorder.h"

namespace moebius {

struct TraceOptions {
  std::string path;  // of the file; rank 0 writes it
  int64_t num_steps = 3;
  TraceRecorder* recorder = nullptr;  // of this rank, and told of all that it does; null: no trace
};

// Nanoseconds by which the steady clock of this rank is ahead of that of rank 0: from the fastest
// of some messages there and back, which are taken to be as fast either way. So it is wrong by half
// of that time at most (Cristian, 1989): microseconds on one host, more over a network. All ranks
// call it together.
int64_t ClockAhead(Communicator& world);

class StepTracer {
 public:
  // REQUIRES: a recorder. The steps that this run is going to take. The world outlives the tracer.
  StepTracer(const TraceOptions& options, Communicator& world, int64_t first_step,
             int64_t last_step);

  // All ranks call these together.
  void BeginStep(int64_t step);
  void EndStep();

  // After the last traced step, until it is written.
  bool IsComplete() const { return last_ended_ == end_ && !is_written_; }

  // Writes the steps that were traced up to now, once; a run that fails is not written. On rank 0:
  // what to print; elsewhere nothing. FailedPrecondition: there is none. On rank 0 also what is
  // wrong with the file.
  absl::StatusOr<std::vector<std::string>> Write();
  bool is_written() const { return is_written_; }

 private:
  bool IsTraced(int64_t step) const { return begin_ <= step && step <= end_; }
  absl::Status GatherEvents();

  const TraceOptions options_;
  Communicator& world_;
  int64_t begin_ = 0, end_ = 0;  // the first and the last traced step
  int64_t step_ = 0;             // that runs
  int64_t last_ended_ = 0;
  int64_t origin_ns_ = 0;  // of the trace, on the clock of this rank
  bool is_written_ = false;
};

}  // namespace moebius
