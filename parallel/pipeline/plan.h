// The launch order of every stage: its schedule with the messages put in. A plain value that the
// executor runs, the simulator proves and a planner draws.
//
// Between two stages messages of one direction meet in order. Each is sent right behind the action
// that computed it; its receive is started one action before the one that needs it, so that it
// travels meanwhile, and in the order in which the other stage sends; never more than three have
// room here before they are used. Neighbouring virtual stages on one stage (the turn of ZB-V; a
// single stage) exchange no message.
//
// A stage has at most kMaxSendsInFlight messages to another under way: the next send waits until
// the oldest of them is taken. The executor does so, and the simulator counts on it.
#pragma once

#include <optional>
#include <vector>

#include "core/base/status.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

// To one stage. Every plan runs with 1; the second hides a late receiver.
inline constexpr int kMaxSendsInFlight = 2;

enum class Passes { kForwardBackward, kForwardOnly };

struct PipelinePlan {
  PipelineSpec spec;
  Passes passes = Passes::kForwardBackward;
  std::vector<std::vector<Action>> stages;  // [p], each in launch order
};

// kForwardOnly: the forwards of the schedule alone (evaluation, counting). InvalidArgument as
// Validate.
absl::StatusOr<PipelinePlan> MakePlan(const PipelineSpec& spec,
                                      Passes passes = Passes::kForwardBackward);

// What travels between neighbouring virtual stages: the activation of a micro-batch to the next, or
// its gradient back.
struct Message {
  bool is_gradient = false;
  int from = 0;  // virtual stages
  int to = 0;
  int micro_batch = 0;

  bool operator==(const Message&) const = default;
  auto operator<=>(const Message&) const = default;
  std::string ToString() const;
};

// What an action of `stage` puts out for, or needs from, a neighbouring virtual stage: on the same
// stage or on another. Forward and backward, input gradients, and the messages themselves.
std::optional<Message> OutputOf(const PipelineSpec& spec, int stage, const Action& action);
std::optional<Message> InputOf(const PipelineSpec& spec, int stage, const Action& action);

// Whether sender and receiver are one stage, so that nothing is sent.
bool StaysHere(const PipelineSpec& spec, const Message& message);

}  // namespace moebius
