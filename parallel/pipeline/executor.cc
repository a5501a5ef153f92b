#include "parallel/pipeline/executor.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>

namespace moebius {
namespace {

using Kind = Action::Kind;

// The values of a message, and what must be waited for before they are touched.
struct Parcel {
  std::vector<Tensor> values;
  std::vector<Handle> handles;

  bool Poll() {
    bool done = true;
    for (Handle& handle : handles) done = handle.Poll() && done;
    return done;
  }
  void Wait() {
    for (Handle& handle : handles) handle.Wait();
    handles.clear();
  }
};

// One run of a plan on one stage.
class PlanRun {
 public:
  PlanRun(const PipelineExecutor::Parts& parts, const PipelinePlan& plan)
      : parts_(parts), plan_(plan), spec_(plan.spec), stage_(parts.stages.rank()) {}

  void Do(const Action& action) {
    DropTakenSends();
    switch (action.kind) {
      case Kind::kForward:
        return Forward(action);
      case Kind::kBackward:
        return Backward(action, WeightGradients::kNow);
      case Kind::kInputGradients:
        return Backward(action, WeightGradients::kDeferred);
      case Kind::kWeightGradients:
        return tapes_.extract(KeyOf(action)).mapped().tape->RunDeferred();
      case Kind::kSendActivation:
      case Kind::kSendGradient:
        return Send(*OutputOf(spec_, stage_, action));
      case Kind::kReceiveActivation:
      case Kind::kReceiveGradient:
        return Receive(*InputOf(spec_, stage_, action));
    }
  }

  void Finish() {
    for (auto& [to, parcel] : sends_) parcel.Wait();
    CHECK(tapes_.empty() && parcels_.empty()) << "the plan is not a whole step";
  }

 private:
  // A micro-batch in a chunk between forward and backward. No Var: what it holds would live on.
  struct LiveTape {
    std::unique_ptr<Tape> tape;
    std::vector<VarId> inputs, outputs;  // of the boundaries
  };
  using Key = std::pair<int, int>;  // chunk, micro-batch

  static Key KeyOf(const Action& action) { return {action.chunk, action.micro_batch}; }

  // The boundary that a message crosses.
  std::vector<ValueSpec> BoundaryOf(const Message& message) const {
    return parts_.model.Boundary(std::min(message.from, message.to), message.micro_batch);
  }

  void Forward(const Action& action) {
    const bool keeps = plan_.passes == Passes::kForwardBackward;
    const Tape::Mode mode = keeps ? Tape::Mode::kTrain : Tape::Mode::kForwardOnly;
    LiveTape live{
        std::make_unique<Tape>(parts_.context, parts_.weights, mode, parts_.gradients), {}, {}};
    const Bundle out = parts_.model.Forward(*live.tape, action.chunk, action.micro_batch,
                                            Enter(*live.tape, action, live.inputs));
    if (const auto message = OutputOf(spec_, stage_, action)) {
      Parcel& parcel = parcels_[*message];
      for (const auto& [name, dtype, shape] : BoundaryOf(*message)) {
        const Var& value = out[name];
        CHECK(value.dtype() == dtype && value.shape() == shape)
            << name << " is " << NameOf(value.dtype()) << " " << value.shape()
            << " where the boundary has " << NameOf(dtype) << " " << shape;
        live.outputs.push_back(value.id());
        parcel.values.push_back(value.value());
      }
    }
    if (keeps) tapes_.emplace(KeyOf(action), std::move(live));
  }

  Bundle Enter(Tape& tape, const Action& action, std::vector<VarId>& ids) {
    Bundle in;
    const std::optional<Message> message = InputOf(spec_, stage_, action);
    if (!message) return in;
    std::vector<Tensor> values = Take(*message);
    const std::vector<ValueSpec> boundary = BoundaryOf(*message);
    for (size_t i = 0; i < boundary.size(); ++i) {
      in.Set(boundary[i].name, tape.Input(std::move(values[i])));
      ids.push_back(in.values.back().second.id());
    }
    return in;
  }

  void Backward(const Action& action, WeightGradients when) {
    const auto live = tapes_.find(KeyOf(action));
    auto& [tape, inputs, outputs] = live->second;
    {
      std::vector<Tape::Seed> seeds;
      if (const auto message = InputOf(spec_, stage_, action)) {
        std::vector<Tensor> gradients = Take(*message);
        for (size_t i = 0; i < outputs.size(); ++i) {
          seeds.push_back({outputs[i], std::move(gradients[i])});
        }
      }
      tape->Backward(seeds, when);
    }
    if (const auto message = OutputOf(spec_, stage_, action)) PutGradients(*message, *tape, inputs);
    if (when == WeightGradients::kNow) tapes_.erase(live);
  }

  void PutGradients(const Message& message, const Tape& tape, const std::vector<VarId>& inputs) {
    Parcel& parcel = parcels_[message];
    const std::vector<ValueSpec> boundary = BoundaryOf(message);
    for (size_t i = 0; i < boundary.size(); ++i) {
      const Tensor& gradient = tape.LeafGradient(inputs[i]);
      parcel.values.push_back(
          gradient.defined()
              ? gradient
              : parts_.context.Zeros(boundary[i].dtype, boundary[i].shape, "pipeline.gradient"));
    }
  }

  // The values of a message that was received, or put here by a chunk of this stage.
  std::vector<Tensor> Take(const Message& message) {
    auto parcel = parcels_.extract(message);
    CHECK(!parcel.empty()) << "no " << message.ToString();
    parcel.mapped().Wait();
    return std::move(parcel.mapped().values);
  }

  void Send(const Message& message) {
    const int to = PlaceOf(spec_, message.to).stage;
    Parcel parcel{.values = Take(message), .handles = {}};
    if (sends_to(to) == kMaxSendsInFlight) WaitForOldestTo(to);
    if (!is_meta()) {
      for (const Tensor& value : parcel.values) {
        parcel.handles.push_back(parts_.stages.Send(value, to));
      }
    }
    sends_.emplace_back(to, std::move(parcel));
  }

  void Receive(const Message& message) {
    const int from = PlaceOf(spec_, message.from).stage;
    Parcel& parcel = parcels_[message];
    for (const auto& [name, dtype, shape] : BoundaryOf(message)) {
      parcel.values.push_back(parts_.context.Empty(dtype, shape, "pipeline.received"));
      if (is_meta()) continue;
      parcel.handles.push_back(parts_.stages.Receive(parcel.values.back(), from));
    }
  }

  bool is_meta() const { return parts_.context.device().is_meta(); }

  int sends_to(int stage) const {
    return static_cast<int>(
        std::ranges::count_if(sends_, [&](const auto& send) { return send.first == stage; }));
  }

  void WaitForOldestTo(int stage) {
    const auto oldest =
        std::ranges::find_if(sends_, [&](const auto& send) { return send.first == stage; });
    oldest->second.Wait();
    sends_.erase(oldest);
  }

  void DropTakenSends() {
    std::erase_if(sends_, [](auto& send) {
      if (!send.second.Poll()) return false;
      send.second.Wait();
      return true;
    });
  }

  const PipelineExecutor::Parts& parts_;
  const PipelinePlan& plan_;
  const PipelineSpec& spec_;
  const int stage_;
  std::map<Key, LiveTape> tapes_;
  std::map<Message, Parcel> parcels_;         // that wait for a chunk of this stage, or to be sent
  std::deque<std::pair<int, Parcel>> sends_;  // by receiver, oldest first
};

}  // namespace

void PipelineExecutor::Run(const PipelinePlan& plan) {
  CHECK_EQ(parts_.stages.size(), plan.spec.num_stages) << "one rank a stage";
  PlanRun run(parts_, plan);
  PlanObserver* const observer = parts_.observer;
  if (observer != nullptr) observer->PlanBegins(plan);
  for (const Action& action : plan.stages[parts_.stages.rank()]) {
    if (observer != nullptr) observer->ActionBegins(action);
    run.Do(action);
    if (observer != nullptr) observer->ActionEnds(action);
  }
  run.Finish();
  if (observer != nullptr) observer->PlanEnds();
}

}  // namespace moebius
