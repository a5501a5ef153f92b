#include "train/planner/dry_run.h"

#include <algorithm>
#include <span>
#include <vector>

#include "train/step_engine.h"

namespace moebius {
namespace {

// A name, or the beginning of names that end in '.'.
bool IsCalled(const std::string& name, std::string_view what) {
  return what.ends_with('.') ? name.starts_with(what) : name == what;
}

// Of the names together: what is there now, or the most that each has had.
int64_t BytesOf(const std::map<std::string, Arena::Use>& by_name, int64_t Arena::Use::*bytes,
                std::initializer_list<std::string_view> names) {
  int64_t sum = 0;
  for (const auto& [name, use] : by_name) {
    const bool counts =
        std::ranges::any_of(names, [&](std::string_view what) { return IsCalled(name, what); });
    if (counts) sum += use.*bytes;
  }
  return sum;
}

// Tells the observers nothing until it is opened.
class Gate final : public WorkObserver, public CallObserver, public PlanObserver {
 public:
  explicit Gate(const DryRunObservers& observers) : observers_(observers) {}
  void Open() { is_open_ = true; }

  void OpBegins(const Work& work) override {
    if (WorkObserver* to = Open(observers_.work)) to->OpBegins(work);
  }
  void OpEnds() override {
    if (WorkObserver* to = Open(observers_.work)) to->OpEnds();
  }
  void PhaseBegins(const char* name) override {
    if (WorkObserver* to = Open(observers_.work)) to->PhaseBegins(name);
  }
  void PhaseEnds() override {
    if (WorkObserver* to = Open(observers_.work)) to->PhaseEnds();
  }
  int64_t Started(const Call& call, const std::vector<int>& members) override {
    CallObserver* to = Open(observers_.calls);
    return to == nullptr ? 0 : to->Started(call, members);
  }
  void Waited(int64_t call) override {
    if (CallObserver* to = Open(observers_.calls)) to->Waited(call);
  }
  void PlanBegins(const PipelinePlan& plan) override {
    if (PlanObserver* to = Open(observers_.plan)) to->PlanBegins(plan);
  }
  void ActionBegins(const Action& action) override {
    if (PlanObserver* to = Open(observers_.plan)) to->ActionBegins(action);
  }
  void ActionEnds(const Action& action) override {
    if (PlanObserver* to = Open(observers_.plan)) to->ActionEnds(action);
  }
  void PlanEnds() override {
    if (PlanObserver* to = Open(observers_.plan)) to->PlanEnds();
  }

 private:
  template <class Observer>
  Observer* Open(Observer* observer) const {
    return is_open_ ? observer : nullptr;
  }

  const DryRunObservers observers_;
  bool is_open_ = false;
};

std::vector<MicroBatch> MicroBatchesOf(StepEngine& engine) {
  const int64_t size = engine.config().train().micro_batch_size();
  const std::vector<Sample> samples(size);
  const std::vector<int64_t> index(size);
  std::vector<MicroBatch> micro_batches;
  for (int m = 0; m < engine.pipeline().num_micro_batches; ++m) {
    micro_batches.push_back(
        MakeMicroBatch(samples, index, engine.micro_batch_options(), engine.context()));
  }
  return micro_batches;
}

}  // namespace

RankMemory MemoryOf(Context& context, const Arena& messages) {
  const std::map<std::string, Arena::Use> by_name = context.arena().by_name();
  const auto now = [&](std::initializer_list<std::string_view> names) {
    return BytesOf(by_name, &Arena::Use::bytes, names);
  };
  RankMemory memory{.parameters = now({"parameters", "gathered_parameters", "buffers"}),
                    .weights = now({"weight_image"}),
                    .gradients = now({"gradients", "gradients."}),
                    .states = now({"optimizer."}),
                    .buffers = BytesOf(by_name, &Arena::Use::peak_bytes,
                                       {"sequence.messages", "gather.padded", "pipeline."}),
                    .scratch = messages.total().peak_bytes,
                    .peak = context.arena().total().peak_bytes,
                    .host = BytesOf(context.arena(MemoryTier::kHost).by_name(), &Arena::Use::bytes,
                                    {"optimizer."})};
  const int64_t kept = memory.parameters + memory.weights + memory.gradients + memory.states;
  memory.buffers = std::min(memory.buffers, memory.peak - kept);
  memory.activations = memory.peak - kept - memory.buffers;
  return memory;
}

absl::StatusOr<RankMemory> DryRun(const RunConfig& config, int64_t tokenizer_vocab_size, int rank,
                                  int num_ranks, const DryRunObservers& observers,
                                  const DryRunDevice& device) {
  Gate gate(observers);
  Arena messages("messages", kMeta);
  DryCommunicator world(rank, num_ranks, {.messages = messages, .observer = &gate});
  ASSIGN_OR_RETURN(const std::unique_ptr<StepEngine> engine,
                   StepEngine::Create(config, tokenizer_vocab_size, world,
                                      {.device = kMeta,
                                       .observer = &gate,
                                       .chunk_elements = device.chunk_elements,
                                       .packs_weights = device.packs_weights,
                                       .reads_host_tier = device.reads_host_tier},
                                      &gate));
  // The first step differs from all others: it makes the images of weights, which are there from
  // then on beside all activations, and which the updates keep.
  engine->Step(1, MicroBatchesOf(*engine));
  gate.Open();
  engine->Step(2, MicroBatchesOf(*engine));
  return MemoryOf(engine->context(), messages);
}

}  // namespace moebius
