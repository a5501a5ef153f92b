// Where the time of a rank's steps goes: the parts before and in the update, and each op. An op
// lasts until the next one begins, so what lies between them counts too.
//
// An accelerator is waited for where a step begins and ends; to time its update or its ops too,
// where these begin. That makes the step longer, and it cannot be replayed then
// (train/step_replayer.h), so such steps are others than those whose whole time is told.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/work.h"
#include "tests/bench/machine.h"

namespace moebius {

struct StepSeconds {
  double step = 0;
  double update = 0;  // from the first parameter's update to the end, where it is timed
};

// Of all steps together.
struct TimedOp {
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0, bytes = 0;
  double least_seconds = 0;  // at the limits that apply to each call
};

class StepClock final : public WorkObserver {
 public:
  enum class Times { kStep, kStepAndUpdate, kStepAndOps };

  // `limits` are those of this rank alone. `accelerator`: what computes; null: the CPU.
  StepClock(const Limits& limits, Accelerator* accelerator)
      : limits_(limits), accelerator_(accelerator) {}

  void Start(Times what);  // a step begins
  StepSeconds Stop();      // it has ended
  void OpBegins(const Work& work) override;
  bool IsWatching() const override { return running_ && running_ != Times::kStep; }

  const std::map<std::string, TimedOp>& ops() const { return ops_; }
  double update_bytes() const { return update_bytes_; }  // of one step whose update was timed

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point Now();  // all work has been done
  void BeginOp(const Work& work, Clock::time_point now);
  void EndOp(Clock::time_point now);

  const Limits limits_;
  Accelerator* const accelerator_;
  std::optional<Times> running_;
  Clock::time_point step_begin_, op_begin_;
  std::optional<Clock::time_point> update_begin_;
  TimedOp* op_ = nullptr;
  std::map<std::string, TimedOp> ops_;
  double update_bytes_ = 0;
};

}  // namespace moebius
