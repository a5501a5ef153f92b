// What one rank does in the steps that are traced: events with begin and end, of its own thread
// (they nest) and of the exchanges that are under way beside it.
//
//   TraceRecorder recorder;     // Context::Options::observer, WaitOptions::observer_of, ...
//   recorder.BeginStep(4);      // and nothing is recorded before
//   ...
//   recorder.EndStep();
//
// Used by the rank's thread alone. An event takes two readings of the clock and 128 bytes, which
// are taken from the system as they fill.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/tensor/work.h"
#include "parallel/pipeline/executor.h"
#include "parallel/progress.h"

namespace moebius {

struct TracedStep {
  int64_t number = 0;
};

struct TracedPhase {
  const char* name = "";
};

// A collective or a message.
struct TracedCall {
  enum class Part {
    kStart,     // the rank starts it, and moves what is under way
    kWait,      // the rank waits for it, and moves what is under way
    kUnderWay,  // from its start until it is done: the one part beside the rank's own thread
  };
  Part part = Part::kUnderWay;
  int group_idx = 0;
  Call call = {};
};

struct TraceEvent {
  using What = std::variant<TracedStep, TracedPhase, Action, Work, TracedCall>;
  What what;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;     // before begin_ns: it has not ended
  int64_t nested_ns = 0;  // of the events directly inside

  int64_t duration_ns() const { return end_ns - begin_ns; }
  int64_t own_ns() const { return duration_ns() - nested_ns; }
  bool is_under_way() const {
    const auto* call = std::get_if<TracedCall>(&what);
    return call != nullptr && call->part == TracedCall::Part::kUnderWay;
  }
};
static_assert(sizeof(TraceEvent) <= 128);

// The steady clock.
int64_t SteadyClockNs();

class TraceRecorder final : public WorkObserver, public PlanObserver, public OperationObserver {
 public:
  static constexpr int64_t kMaxEvents = int64_t{1} << 20;

  explicit TraceRecorder(int64_t max_events = kMaxEvents, int64_t (*clock)() = SteadyClockNs)
      : max_events_(max_events), clock_(clock) {}

  // A step, between all that it holds.
  void BeginStep(int64_t step);
  void EndStep();

  // Forgets all events, and gives back their memory.
  void Clear();

  // In the order in which they began. Those of exchanges that were not waited for have no end.
  const std::vector<TraceEvent>& events() const { return events_; }
  const std::vector<std::string>& groups() const { return groups_; }  // by group_idx
  int64_t num_left_out() const { return num_left_out_; }              // beyond max_events

  void OpBegins(const Work& work) override { Begin(work); }
  void OpEnds() override { End(); }
  void PhaseBegins(const char* name) override { Begin(TracedPhase{name}); }
  void PhaseEnds() override { End(); }

  void PlanBegins(const PipelinePlan& /*plan*/) override {}
  void ActionBegins(const Action& action) override { Begin(action); }
  void ActionEnds(const Action& /*action*/) override { End(); }
  void PlanEnds() override {}

  void StartBegins(const Pending& operation) override;
  void StartEnds() override { End(); }
  void WaitBegins(const Pending& operation) override;
  void WaitEnds() override { End(); }
  void Done(const Pending& operation) override;

 private:
  static constexpr int64_t kLeftOut = -1;

  // The index of a new event, or kLeftOut.
  int64_t Add(const TraceEvent::What& what);
  void Begin(const TraceEvent::What& what);
  void End();
  int GroupIndex(const std::string& group);

  const int64_t max_events_;
  int64_t (*const clock_)();
  bool in_step_ = false;
  std::vector<TraceEvent> events_;
  std::vector<int64_t> open_;  // indices of the events that the rank is in, the outermost first
  std::vector<std::pair<int64_t, int64_t>> under_way_;  // Call::order, index
  std::vector<std::string> groups_;
  int64_t num_left_out_ = 0;
};

// Those of the ranks of one process. Thread-safe.
class TraceRecorders {
 public:
  TraceRecorder* Of(int rank);  // made by the first call

 private:
  std::mutex mutex_;
  std::map<int, std::unique_ptr<TraceRecorder>> recorders_;
};

}  // namespace moebius
