#include "parallel/pipeline/plan.h"

#include <algorithm>
#include <map>

#include "core/base/check.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

bool IsForward(Kind kind) { return kind == Kind::kForward; }
bool IsBackward(Kind kind) { return kind == Kind::kBackward || kind == Kind::kInputGradients; }

std::optional<Message> Between(const PipelineSpec& spec, bool is_gradient, int from, int to,
                               int micro_batch) {
  if (std::min(from, to) < 0 || std::max(from, to) >= spec.num_virtual_stages()) {
    return std::nullopt;
  }
  return Message{.is_gradient = is_gradient, .from = from, .to = to, .micro_batch = micro_batch};
}

// What a stage receives from each other stage, in the order of sending, and how much of it has a
// receive already.
struct Incoming {
  std::vector<Message> messages;
  size_t num_received = 0;
};

class MessageInserter {
 public:
  MessageInserter(const PipelineSpec& spec, const std::vector<std::vector<Action>>& computes)
      : spec_(spec), computes_(computes) {}

  std::vector<Action> ActionsOf(int stage) {
    incoming_ = IncomingOf(stage);
    const std::vector<Action>& computes = computes_[stage];
    std::vector<Action> actions;
    AddReceives(stage, computes[0], actions);
    for (size_t i = 0; i < computes.size(); ++i) {
      if (i + 1 < computes.size()) AddReceives(stage, computes[i + 1], actions);
      actions.push_back(computes[i]);
      const std::optional<Message> output = OutputOf(spec_, stage, computes[i]);
      if (!output || StaysHere(spec_, *output)) continue;
      actions.push_back({output->is_gradient ? Kind::kSendGradient : Kind::kSendActivation,
                         computes[i].chunk, output->micro_batch});
    }
    return actions;
  }

 private:
  std::map<int, Incoming> IncomingOf(int stage) const {
    std::map<int, Incoming> incoming;
    for (int from = 0; from < spec_.num_stages; ++from) {
      for (const Action& action : computes_[from]) {
        const std::optional<Message> message = OutputOf(spec_, from, action);
        if (!message || from == stage || PlaceOf(spec_, message->to).stage != stage) continue;
        incoming[from].messages.push_back(*message);
      }
    }
    return incoming;
  }

  // Receives up to the message that `compute` needs, if it needs one that has none yet.
  void AddReceives(int stage, const Action& compute, std::vector<Action>& actions) {
    const std::optional<Message> input = InputOf(spec_, stage, compute);
    if (!input || StaysHere(spec_, *input)) return;
    auto& [messages, num_received] = incoming_[PlaceOf(spec_, input->from).stage];
    const auto end = std::ranges::find(messages, *input);
    CHECK(end != messages.end()) << "nobody sends " << input->ToString();
    for (; num_received <= static_cast<size_t>(end - messages.begin()); ++num_received) {
      const Message& message = messages[num_received];
      actions.push_back({message.is_gradient ? Kind::kReceiveGradient : Kind::kReceiveActivation,
                         PlaceOf(spec_, message.to).chunk, message.micro_batch});
    }
  }

  const PipelineSpec& spec_;
  const std::vector<std::vector<Action>>& computes_;
  std::map<int, Incoming> incoming_;  // by stage of origin
};

}  // namespace

std::string Message::ToString() const {
  return absl::StrCat(is_gradient ? "gradient" : "activation", " of micro-batch ", micro_batch,
                      " from virtual stage ", from, " to ", to);
}

std::optional<Message> OutputOf(const PipelineSpec& spec, int stage, const Action& action) {
  const int self = VirtualStageOf(spec, {stage, action.chunk});
  if (IsForward(action.kind) || action.kind == Kind::kSendActivation) {
    return Between(spec, false, self, self + 1, action.micro_batch);
  }
  if (IsBackward(action.kind) || action.kind == Kind::kSendGradient) {
    return Between(spec, true, self, self - 1, action.micro_batch);
  }
  return std::nullopt;
}

std::optional<Message> InputOf(const PipelineSpec& spec, int stage, const Action& action) {
  const int self = VirtualStageOf(spec, {stage, action.chunk});
  if (IsForward(action.kind) || action.kind == Kind::kReceiveActivation) {
    return Between(spec, false, self - 1, self, action.micro_batch);
  }
  if (IsBackward(action.kind) || action.kind == Kind::kReceiveGradient) {
    return Between(spec, true, self + 1, self, action.micro_batch);
  }
  return std::nullopt;
}

bool StaysHere(const PipelineSpec& spec, const Message& message) {
  return PlaceOf(spec, message.from).stage == PlaceOf(spec, message.to).stage;
}

absl::StatusOr<PipelinePlan> MakePlan(const PipelineSpec& spec, Passes passes) {
  RETURN_IF_ERROR(Validate(spec));
  std::vector<std::vector<Action>> computes;
  for (int stage = 0; stage < spec.num_stages; ++stage) {
    computes.push_back(ComputeActions(spec, stage));
    if (passes == Passes::kForwardOnly) {
      std::erase_if(computes.back(), [](const Action& a) { return !IsForward(a.kind); });
    }
  }
  PipelinePlan plan{.spec = spec, .passes = passes, .stages = {}};
  MessageInserter inserter(spec, computes);
  for (int stage = 0; stage < spec.num_stages; ++stage) {
    plan.stages.push_back(inserter.ActionsOf(stage));
  }
  return plan;
}

}  // namespace moebius
