#include "parallel/pipeline/legality.h"

#include <algorithm>
#include <set>

#include "core/base/check.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

class StageChecker {
 public:
  StageChecker(const PipelinePlan& plan, int stage) : plan_(plan), stage_(stage) {}

  absl::Status Check() {
    for (const Action& action : plan_.stages[stage_]) {
      RETURN_IF_ERROR(CheckDependencies(action));
      if (!seen_.insert(action).second) return Illegal(action, "is there more than once");
    }
    for (int chunk = 0; chunk < plan_.spec.num_chunks; ++chunk) {
      for (int i = 0; i < plan_.spec.num_micro_batches; ++i) RETURN_IF_ERROR(TakeAll(chunk, i));
    }
    return seen_.empty() ? absl::OkStatus() : Illegal(*seen_.begin(), "has no place in the step");
  }

 private:
  absl::Status Illegal(const Action& action, const char* why) const {
    return absl::InternalError(absl::StrCat("stage ", stage_, ": ", action.ToString(), ": ", why));
  }

  bool Saw(Kind kind, int chunk, int i) const { return seen_.contains({kind, chunk, i}); }
  bool SawBackward(int chunk, int i) const {
    return Saw(Kind::kBackward, chunk, i) || Saw(Kind::kInputGradients, chunk, i);
  }

  absl::Status CheckDependencies(const Action& action) const {
    const auto& [kind, chunk, i] = action;
    switch (kind) {
      case Kind::kForward:
        return CheckInput(action);
      case Kind::kBackward:
      case Kind::kInputGradients:
        if (!Saw(Kind::kForward, chunk, i)) return Illegal(action, "stands before its forward");
        return CheckInput(action);
      case Kind::kWeightGradients:
        if (Saw(Kind::kInputGradients, chunk, i)) return absl::OkStatus();
        return Illegal(action, "stands before its input gradients");
      case Kind::kSendActivation:
        if (Saw(Kind::kForward, chunk, i)) return absl::OkStatus();
        return Illegal(action, "stands before its forward");
      case Kind::kSendGradient:
        if (SawBackward(chunk, i)) return absl::OkStatus();
        return Illegal(action, "stands before its backward");
      case Kind::kReceiveActivation:
      case Kind::kReceiveGradient:
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // What `compute` needs is here: computed by the neighbouring chunk, or received.
  absl::Status CheckInput(const Action& compute) const {
    const std::optional<Message> input = InputOf(plan_.spec, stage_, compute);
    if (!input) return absl::OkStatus();
    const int i = compute.micro_batch;
    if (StaysHere(plan_.spec, *input)) {
      const int chunk = PlaceOf(plan_.spec, input->from).chunk;
      const bool is_computed =
          input->is_gradient ? SawBackward(chunk, i) : Saw(Kind::kForward, chunk, i);
      return is_computed ? absl::OkStatus() : Illegal(compute, "stands before its input's chunk");
    }
    return Saw(ReceiveFor(compute.kind), compute.chunk, i)
               ? absl::OkStatus()
               : Illegal(compute, "stands before the receive of its input");
  }

  static Kind ReceiveFor(Kind compute) {
    return compute == Kind::kForward ? Kind::kReceiveActivation : Kind::kReceiveGradient;
  }
  static Kind SendFor(Kind compute) {
    return compute == Kind::kForward ? Kind::kSendActivation : Kind::kSendGradient;
  }

  // Takes out what a step does with a micro-batch.
  absl::Status TakeAll(int chunk, int i) {
    RETURN_IF_ERROR(TakeWithMessages({Kind::kForward, chunk, i}));
    if (plan_.passes == Passes::kForwardOnly) return absl::OkStatus();
    if (Saw(Kind::kBackward, chunk, i)) return TakeWithMessages({Kind::kBackward, chunk, i});
    RETURN_IF_ERROR(TakeWithMessages({Kind::kInputGradients, chunk, i}));
    return Take({Kind::kWeightGradients, chunk, i});
  }

  absl::Status TakeWithMessages(const Action& compute) {
    const auto& [kind, chunk, i] = compute;
    RETURN_IF_ERROR(Take(compute));
    const auto travels = [&](const std::optional<Message>& message) {
      return message && !StaysHere(plan_.spec, *message);
    };
    if (travels(InputOf(plan_.spec, stage_, compute))) {
      RETURN_IF_ERROR(Take({ReceiveFor(kind), chunk, i}));
    }
    if (travels(OutputOf(plan_.spec, stage_, compute))) {
      RETURN_IF_ERROR(Take({SendFor(kind), chunk, i}));
    }
    return absl::OkStatus();
  }

  absl::Status Take(const Action& action) {
    return seen_.erase(action) == 1 ? absl::OkStatus() : Illegal(action, "is missing");
  }

  const PipelinePlan& plan_;
  const int stage_;
  std::set<Action> seen_;
};

using MessageFn = std::optional<Message> (*)(const PipelineSpec&, int, const Action&);

// The messages of `stage` to or from `peer` by actions of these kinds, in order.
std::vector<Message> MessagesOf(const PipelinePlan& plan, int stage, int peer, MessageFn message_of,
                                Kind activation, Kind gradient) {
  std::vector<Message> messages;
  for (const Action& action : plan.stages[stage]) {
    if (action.kind != activation && action.kind != gradient) continue;
    const Message message = *message_of(plan.spec, stage, action);
    const int from = PlaceOf(plan.spec, message.from).stage;
    const int to = PlaceOf(plan.spec, message.to).stage;
    if ((from == stage ? to : from) == peer) messages.push_back(message);
  }
  return messages;
}

// REQUIRES: every stage is legal, so that both sides have the same messages in some order.
absl::Status CheckMessageOrder(const PipelinePlan& plan, int from, int to) {
  const std::vector<Message> sent =
      MessagesOf(plan, from, to, &OutputOf, Kind::kSendActivation, Kind::kSendGradient);
  const std::vector<Message> received =
      MessagesOf(plan, to, from, &InputOf, Kind::kReceiveActivation, Kind::kReceiveGradient);
  CHECK_EQ(sent.size(), received.size());
  const auto [a, b] = std::ranges::mismatch(sent, received);
  if (a == sent.end()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("stage ", from, " sends the ", a->ToString(),
                                          " where stage ", to, " receives the ", b->ToString()));
}

}  // namespace

absl::Status CheckLegal(const PipelinePlan& plan) {
  const int p = plan.spec.num_stages;
  CHECK_EQ(static_cast<int>(plan.stages.size()), p);
  for (int stage = 0; stage < p; ++stage) RETURN_IF_ERROR(StageChecker(plan, stage).Check());
  for (int from = 0; from < p; ++from) {
    for (int to = 0; to < p; ++to) {
      if (from != to) RETURN_IF_ERROR(CheckMessageOrder(plan, from, to));
    }
  }
  return absl::OkStatus();
}

}  // namespace moebius
