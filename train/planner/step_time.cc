#include "train/planner/step_time.h"

#include <algorithm>
#include <utility>

#include "model/spec.h"
#include "train/pipeline_layout.h"
#include "train/step_engine.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

// [chunks] What the actions of a micro-batch in the middle take.
using ChunkTimesOf = std::vector<std::map<Kind, RankTime>>;

// Of one stage, once a dry run has passed on a clock.
struct StageTimes {
  RankMemory memory = {};
  ChunkTimesOf training = {};
  ChunkTimesOf counting = {};  // empty if the step has no pass that only counts
  RankTime rest = {};          // of the step
  OpTimes ops = {};            // of the step
};

// A step of fewer micro-batches: enough for first and last ones, which begin and end what others
// do not, and for the most that a stage keeps at a time. All of them under GPipe, which keeps all.
RunConfig Shortened(const RunConfig& config, const PipelineSpec& spec, int fewest) {
  const int p = spec.num_stages, m = spec.num_micro_batches;
  const int fewer = (std::max(2 * p, fewest) + p - 1) / p * p;
  if (spec.schedule == ScheduleKind::kGPipe || fewer >= m) return config;
  RunConfig shortened = config;
  shortened.mutable_train()->set_global_batch_size(config.train().global_batch_size() / m * fewer);
  return shortened;
}

// The times of a plan's micro-batch in the middle; what the others take more goes to `rest`.
ChunkTimesOf SteadyTimes(const StageClock::PlanTimes& times, RankTime* rest) {
  ChunkTimesOf steady(times.plan.spec.num_chunks);
  for (const auto& [action, time] : times.actions) {
    if (action.micro_batch == times.middle()) steady[action.chunk][action.kind] = time;
  }
  for (const auto& [action, time] : times.actions) {
    *rest += time;
    *rest -= steady[action.chunk][action.kind];
  }
  return steady;
}

// The plan with forward and backward; before it there may be one that only counts. The micro-batch
// in the middle stands for those of the step that did not run dry.
StageTimes Summarize(const StageClock& clock, const RankMemory& memory, int num_micro_batches) {
  StageTimes times{.memory = memory, .rest = clock.outside(), .ops = clock.ops()};
  times.training = SteadyTimes(clock.plans().back(), &times.rest);
  if (clock.plans().size() > 1) {
    times.counting = SteadyTimes(clock.plans().front(), &times.rest);
  }
  for (const StageClock::PlanTimes& plan : clock.plans()) {
    Add(num_micro_batches - plan.plan.spec.num_micro_batches, plan.middle_ops, &times.ops);
  }
  return times;
}

// A step, as all of its stages know it.
struct Step {
  const RunConfig& config;
  int64_t tokenizer_vocab_size;
  int num_ranks;
  const ModelSpec& model;
  const PipelineSpec pipeline;
};

absl::StatusOr<StageTimes> RunStage(const Step& step, int stage, const CostModel& cost,
                                    bool is_quick) {
  const int fewest = is_quick ? 3 : 8;
  const int rank = stage * (step.num_ranks / step.pipeline.num_stages);
  const DeviceConfig& device = cost.cluster().device();
  const bool is_one_memory = device.host_bandwidth() == 0;
  StageClock clock(cost, step.num_ranks);
  ASSIGN_OR_RETURN(RankMemory memory,
                   DryRun(Shortened(step.config, step.pipeline, fewest), step.tokenizer_vocab_size,
                          rank, step.num_ranks, {.work = &clock, .calls = &clock, .plan = &clock},
                          {.chunk_elements = device.chunk_elements(),
                           .packs_weights = device.packs_weights(),
                           .reads_host_tier = is_one_memory}));
  if (is_one_memory) {
    memory.states += memory.host;
    memory.peak += std::exchange(memory.host, 0);
  }
  return Summarize(clock, memory, step.pipeline.num_micro_batches);
}

// Equal for stages whose chunks have alike layers.
std::vector<int64_t> CompositionOf(const Step& step, int stage) {
  std::vector<int64_t> composition;
  for (const ModelChunk& chunk : ChunksOf(step.config, step.pipeline, stage)) {
    const auto begin = step.model.is_moe_layer.begin();
    composition.push_back(chunk.end_layer - chunk.first_layer);
    composition.push_back(std::count(begin + chunk.first_layer, begin + chunk.end_layer, true));
    composition.push_back((chunk.embeds ? 1 : 0) + (chunk.has_head ? 2 : 0));
  }
  return composition;
}

absl::StatusOr<std::vector<StageTimes>> RunStages(const Step& step, const CostModel& cost,
                                                  bool is_quick) {
  std::vector<StageTimes> times;
  std::map<std::vector<int64_t>, int> first_with;
  for (int stage = 0; stage < step.pipeline.num_stages; ++stage) {
    const auto [alike, is_new] = first_with.insert({CompositionOf(step, stage), stage});
    if (!is_new && is_quick) {
      times.push_back(times[alike->second]);
      continue;
    }
    ASSIGN_OR_RETURN(times.emplace_back(), RunStage(step, stage, cost, is_quick));
  }
  return times;
}

double SecondsIn(const std::map<Kind, RankTime>& steady, Kind kind) {
  const auto found = steady.find(kind);
  return found == steady.end() ? 0 : found->second.total();
}

// What a virtual stage hands to the next.
double MessageSeconds(const RunConfig& config, int num_ranks, const CostModel& cost) {
  const ParallelConfig& parallel = config.parallel();
  if (parallel.pipeline_size() == 1) return 0;
  const double tokens = static_cast<double>(config.train().micro_batch_size()) *
                        static_cast<double>(config.train().sequence_length()) /
                        (parallel.tensor_size() * parallel.context_size());
  const auto width = static_cast<double>(config.model().hidden_size());
  const auto size = static_cast<double>(SizeOf(ComputeDtypeOf(config)));
  const Call receive{.collective = Collective::kReceive,
                     .bytes = static_cast<int64_t>(tokens * width * size)};
  std::vector<int> stages;  // the ranks of a pipeline
  for (int stage = 0; stage < parallel.pipeline_size(); ++stage) {
    stages.push_back(stage * (num_ranks / parallel.pipeline_size()));
  }
  return cost.CostOf(receive, cost.SpreadOf(stages, num_ranks)).seconds();
}

absl::StatusOr<Simulation> SimulateStages(const std::vector<StageTimes>& stages,
                                          ChunkTimesOf StageTimes::*pass, const PipelinePlan& plan,
                                          double message_seconds) {
  SimulationOptions options{.latency = message_seconds};
  for (int v = 0; v < plan.spec.num_virtual_stages(); ++v) {
    const ChunkPlace place = PlaceOf(plan.spec, v);
    const std::map<Kind, RankTime>& steady = (stages[place.stage].*pass)[place.chunk];
    options.times.push_back({.forward = SecondsIn(steady, Kind::kForward),
                             .input_gradients = SecondsIn(steady, Kind::kBackward) +
                                                SecondsIn(steady, Kind::kInputGradients),
                             .weight_gradients = SecondsIn(steady, Kind::kWeightGradients)});
  }
  return Simulate(plan, options);
}

// Seconds until all stages have counted, if they do.
absl::StatusOr<double> CountingSeconds(const std::vector<StageTimes>& stages,
                                       const PipelineSpec& spec, double message_seconds) {
  if (stages[0].counting.empty()) return 0;
  ASSIGN_OR_RETURN(const PipelinePlan plan, MakePlan(spec, Passes::kForwardOnly));
  ASSIGN_OR_RETURN(const Simulation simulation,
                   SimulateStages(stages, &StageTimes::counting, plan, message_seconds));
  return simulation.makespan;
}

RankTime SumOf(const ChunkTimesOf& chunks) {
  RankTime sum;
  for (const auto& chunk : chunks) {
    for (const auto& [kind, time] : chunk) sum += time;
  }
  return sum;
}

StagePlan PlanOf(const StageTimes& times, const PipelineSpec& spec) {
  StagePlan stage{.memory = times.memory, .rest = times.rest, .ops = times.ops};
  stage.micro_batches = spec.num_micro_batches * SumOf(times.training);
  stage.rest += spec.num_micro_batches * SumOf(times.counting);
  return stage;
}

double WorkOf(const StagePlan& stage) { return stage.micro_batches.total() + stage.rest.total(); }

}  // namespace

int64_t StepPlan::host_bytes() const {
  int64_t most = 0;
  for (const StagePlan& stage : stages) most = std::max(most, stage.memory.host);
  return most;
}

absl::StatusOr<StepPlan> PlanStep(const RunConfig& config, int64_t tokenizer_vocab_size,
                                  int num_ranks, const CostModel& cost,
                                  const PlanOptions& options) {
  ASSIGN_OR_RETURN(const ModelSpec model,
                   ModelSpec::FromProto(config.model(), tokenizer_vocab_size));
  RETURN_IF_ERROR(CheckPipeline(config, num_ranks));
  const PipelineSpec spec = PipelineOf(config, num_ranks);
  ASSIGN_OR_RETURN(
      const std::vector<StageTimes> times,
      RunStages({config, tokenizer_vocab_size, num_ranks, model, spec}, cost, options.is_quick));

  StepPlan plan{.peak_flops = cost.peak_flops(), .num_ranks = num_ranks};
  const TrainConfig& train = config.train();
  plan.tokens = static_cast<double>(train.global_batch_size() * train.sequence_length());
  plan.model_flops = 3 * model.ForwardFlopsPerToken(train.sequence_length()) * plan.tokens;
  const double message_seconds = MessageSeconds(config, num_ranks, cost);
  ASSIGN_OR_RETURN(const PipelinePlan training, MakePlan(spec));
  ASSIGN_OR_RETURN(plan.timeline,
                   SimulateStages(times, &StageTimes::training, training, message_seconds));
  ASSIGN_OR_RETURN(const double counting, CountingSeconds(times, spec, message_seconds));
  double rest = 0;
  for (int s = 0; s < spec.num_stages; ++s) {
    rest = std::max(rest, times[s].rest.total());
    const StagePlan& stage = plan.stages.emplace_back(PlanOf(times[s], spec));
    if (stage.bytes() > plan.peak_bytes()) plan.fullest_stage = s;
    if (WorkOf(stage) > WorkOf(plan.stages[plan.slowest_stage])) plan.slowest_stage = s;
  }
  plan.seconds = plan.timeline.makespan + counting + rest;
  for (StagePlan& stage : plan.stages) stage.bubble = std::max(plan.seconds - WorkOf(stage), 0.0);
  return plan;
}

}  // namespace moebius
