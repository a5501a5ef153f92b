#include "parallel/pipeline/simulator.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "parallel/pipeline/legality.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

// The messages from one stage to another: the i-th send meets the i-th receive.
struct Channel {
  std::vector<double> sends, receives;  // when they start

  // When the i-th message has arrived; nothing before both sides have started.
  std::optional<double> Arrival(size_t i, double latency) const {
    if (i >= sends.size() || i >= receives.size()) return std::nullopt;
    return std::max(sends[i], receives[i]) + latency;
  }
};

class Player {
 public:
  Player(const PipelinePlan& plan, const SimulationOptions& options)
      : plan_(plan), options_(options), stages_(plan.stages.size()) {
    result_.stages.resize(plan.stages.size());
  }

  // Every stage goes as far as it can, until none can go on.
  absl::StatusOr<Simulation> Play() {
    for (bool moves = true; moves;) {
      moves = false;
      for (int s = 0; s < plan_.spec.num_stages; ++s) {
        const std::vector<Action>& actions = plan_.stages[s];
        for (Stage& stage = stages_[s]; stage.next < actions.size(); ++stage.next) {
          if (!Run(s, actions[stage.next])) break;
          moves = true;
        }
      }
    }
    RETURN_IF_ERROR(CheckFinished());
    for (StageSimulation& stage : result_.stages) Summarize(stage);
    return std::move(result_);
  }

 private:
  struct Receipt {
    const Channel* channel = nullptr;
    size_t number = 0;
  };
  struct Stage {
    size_t next = 0;
    double clock = 0;
    bool sending = false;  // the next action is a send that has started and blocks
    double stashes = 0;
    std::map<Message, Receipt> received;  // and not used yet
  };

  // False if it has to wait for another stage.
  bool Run(int s, const Action& action) {
    switch (action.kind) {
      case Kind::kSendActivation:
      case Kind::kSendGradient:
        return Send(s, *OutputOf(plan_.spec, s, action));
      case Kind::kReceiveActivation:
      case Kind::kReceiveGradient:
        Receive(s, *InputOf(plan_.spec, s, action));
        return true;
      default:
        return Compute(s, action);
    }
  }

  bool Send(int s, const Message& message) {
    Stage& stage = stages_[s];
    Channel& channel = channels_[{s, PlaceOf(plan_.spec, message.to).stage}];
    const int64_t room = options_.sends_in_flight;
    if (room > 0 && !WaitFor(channel, std::ssize(channel.sends) - room, stage)) return false;
    if (!stage.sending) channel.sends.push_back(stage.clock);
    stage.sending = room == 0 && !WaitFor(channel, std::ssize(channel.sends) - 1, stage);
    return !stage.sending;
  }

  // False as long as message `number` of the channel has not arrived; those before 0 have.
  bool WaitFor(const Channel& channel, int64_t number, Stage& stage) const {
    if (number < 0) return true;
    const auto arrival = channel.Arrival(static_cast<size_t>(number), options_.latency);
    if (arrival) stage.clock = std::max(stage.clock, *arrival);
    return arrival.has_value();
  }

  void Receive(int s, const Message& message) {
    Stage& stage = stages_[s];
    Channel& channel = channels_[{PlaceOf(plan_.spec, message.from).stage, s}];
    channel.receives.push_back(stage.clock);
    stage.received[message] = {&channel, channel.receives.size() - 1};
    int& peak = result_.stages[s].peak_received;
    peak = std::max(peak, static_cast<int>(stage.received.size()));
  }

  bool Compute(int s, const Action& action) {
    Stage& stage = stages_[s];
    double start = stage.clock;
    const std::optional<Message> input = InputOf(plan_.spec, s, action);
    if (input && !StaysHere(plan_.spec, *input)) {
      const auto receipt = stage.received.find(*input);
      const auto& [channel, number] = receipt->second;
      const std::optional<double> arrival = channel->Arrival(number, options_.latency);
      if (!arrival) return false;
      start = std::max(start, *arrival);
      stage.received.erase(receipt);
    }
    stage.clock = start + TimeOf(s, action);
    result_.stages[s].timeline.push_back({action, start, stage.clock});
    Stash(s, action.kind);
    return true;
  }

  double TimeOf(int s, const Action& action) const {
    const int virtual_stage = VirtualStageOf(plan_.spec, {s, action.chunk});
    const ChunkTimes times = options_.times.empty() ? ChunkTimes{} : options_.times[virtual_stage];
    switch (action.kind) {
      case Kind::kForward:
        return times.forward;
      case Kind::kBackward:
        return times.input_gradients + times.weight_gradients;
      case Kind::kInputGradients:
        return times.input_gradients;
      default:
        return times.weight_gradients;
    }
  }

  void Stash(int s, Kind kind) {
    if (plan_.passes == Passes::kForwardOnly) return;
    double& stashes = stages_[s].stashes;
    if (kind == Kind::kForward) stashes += 1;
    if (kind == Kind::kBackward) stashes -= 1;
    if (kind == Kind::kInputGradients) stashes -= 1 - options_.weight_share;
    if (kind == Kind::kWeightGradients) stashes -= options_.weight_share;
    double& peak = result_.stages[s].peak_stashes;
    peak = std::max(peak, stashes);
  }

  absl::Status CheckFinished() const {
    std::string waits;
    for (int s = 0; s < plan_.spec.num_stages; ++s) {
      if (stages_[s].next == plan_.stages[s].size()) continue;
      absl::StrAppend(&waits, waits.empty() ? "" : "; ", "stage ", s, " waits in ",
                      plan_.stages[s][stages_[s].next].ToString());
    }
    return waits.empty() ? absl::OkStatus() : absl::InternalError("deadlock: " + waits);
  }

  void Summarize(StageSimulation& stage) {
    const double first = stage.timeline.front().start, last = stage.timeline.back().end;
    double work = 0;
    for (const TimedAction& timed : stage.timeline) work += timed.end - timed.start;
    stage.bubble = last - first - work;
    result_.bubble = std::max(result_.bubble, stage.bubble);
    result_.makespan = std::max(result_.makespan, last);
  }

  const PipelinePlan& plan_;
  const SimulationOptions& options_;
  std::vector<Stage> stages_;
  std::map<std::pair<int, int>, Channel> channels_;  // by (from, to)
  Simulation result_;
};

}  // namespace

absl::StatusOr<Simulation> Simulate(const PipelinePlan& plan, const SimulationOptions& options) {
  CHECK(options.times.empty() || std::ssize(options.times) == plan.spec.num_virtual_stages())
      << "times of every virtual stage";
  RETURN_IF_ERROR(CheckLegal(plan));
  return Player(plan, options).Play();
}

}  // namespace moebius
