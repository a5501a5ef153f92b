#include "train/planner/step_time.h"

#include <algorithm>
#include <utility>

#include "model/spec.h"
#include "train/pipeline_layout.h"
#include "train/step_engine.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

// Of one stage, once a dry run has passed on a clock.
struct StageTimes {
  RankMemory memory = {};
  std::vector<std::map<Kind, RankTime>> steady = {};  // [chunks] of a micro-batch in the middle
  RankTime rest = {};                                 // of the step
  std::map<std::string, OpTime> ops = {};
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

// The plan with forward and backward; before it there may be one that only counts.
StageTimes Summarize(const StageClock& clock, const RankMemory& memory) {
  const StageClock::PlanTimes& training = clock.plans().back();
  const int middle = training.plan.spec.num_micro_batches / 2;
  StageTimes times{.memory = memory, .rest = clock.outside(), .ops = clock.ops()};
  times.steady.resize(training.plan.spec.num_chunks);
  for (const auto& [action, time] : training.actions) {
    if (action.micro_batch == middle) times.steady[action.chunk][action.kind] = time;
  }
  for (const auto& [action, time] : training.actions) {
    times.rest += time;
    times.rest -= times.steady[action.chunk][action.kind];
  }
  return times;
}

// Counting takes the forwards of every micro-batch through all stages.
double MakespanOfCounting(const StageClock& clock, const PipelineSpec& spec) {
  if (clock.plans().size() < 2) return 0;
  const StageClock::PlanTimes& counting = clock.plans().front();
  RankTime sum;
  for (const auto& [action, time] : counting.actions) sum += time;
  const int counted = counting.plan.spec.num_micro_batches;
  return sum.total() / counted * (spec.num_micro_batches + spec.num_stages - 1);
}

absl::StatusOr<StageTimes> RunStage(const RunConfig& config, int64_t vocab_size, int stage,
                                    int num_ranks, const CostModel& cost, const PipelineSpec& spec,
                                    const PlanOptions& options) {
  const int fewest = options.is_quick ? 3 : 8;
  const int rank = stage * (num_ranks / spec.num_stages);
  StageClock clock(cost, num_ranks);
  ASSIGN_OR_RETURN(const RankMemory memory,
                   DryRun(Shortened(config, spec, fewest), vocab_size, rank, num_ranks,
                          {.work = &clock, .calls = &clock, .plan = &clock},
                          {.chunk_elements = cost.cluster().device().chunk_elements()}));
  StageTimes times = Summarize(clock, memory);
  times.rest.compute += MakespanOfCounting(clock, spec);
  return times;
}

// Equal for stages whose chunks have alike layers.
std::vector<int64_t> CompositionOf(const RunConfig& config, const ModelSpec& model,
                                   const PipelineSpec& spec, int stage) {
  std::vector<int64_t> composition;
  for (const ModelChunk& chunk : ChunksOf(config, spec, stage)) {
    const auto begin = model.is_moe_layer.begin();
    composition.push_back(chunk.end_layer - chunk.first_layer);
    composition.push_back(std::count(begin + chunk.first_layer, begin + chunk.end_layer, true));
    composition.push_back((chunk.embeds ? 1 : 0) + (chunk.has_head ? 2 : 0));
  }
  return composition;
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
                                          const PipelineSpec& spec, double message_seconds) {
  SimulationOptions options{.latency = message_seconds};
  for (int v = 0; v < spec.num_virtual_stages(); ++v) {
    const ChunkPlace place = PlaceOf(spec, v);
    const std::map<Kind, RankTime>& steady = stages[place.stage].steady[place.chunk];
    options.times.push_back({.forward = SecondsIn(steady, Kind::kForward),
                             .input_gradients = SecondsIn(steady, Kind::kBackward) +
                                                SecondsIn(steady, Kind::kInputGradients),
                             .weight_gradients = SecondsIn(steady, Kind::kWeightGradients)});
  }
  ASSIGN_OR_RETURN(const PipelinePlan plan, MakePlan(spec));
  return Simulate(plan, options);
}

StagePlan PlanOf(const StageTimes& times, const PipelineSpec& spec) {
  StagePlan stage{.memory = times.memory, .rest = times.rest, .ops = times.ops};
  for (const auto& chunk : times.steady) {
    for (const auto& [kind, time] : chunk) stage.micro_batches += spec.num_micro_batches * time;
  }
  return stage;
}

double WorkOf(const StagePlan& stage) { return stage.micro_batches.total() + stage.rest.total(); }

}  // namespace

absl::StatusOr<StepPlan> PlanStep(const RunConfig& config, int64_t tokenizer_vocab_size,
                                  int num_ranks, const CostModel& cost,
                                  const PlanOptions& options) {
  ASSIGN_OR_RETURN(const ModelSpec model,
                   ModelSpec::FromProto(config.model(), tokenizer_vocab_size));
  RETURN_IF_ERROR(CheckPipeline(config, num_ranks));
  const PipelineSpec spec = PipelineOf(config, num_ranks);
  std::vector<StageTimes> times;
  std::map<std::vector<int64_t>, int> first_with;
  for (int stage = 0; stage < spec.num_stages; ++stage) {
    const auto [alike, is_new] =
        first_with.insert({CompositionOf(config, model, spec, stage), stage});
    if (!is_new && options.is_quick) {
      times.push_back(times[alike->second]);
      continue;
    }
    ASSIGN_OR_RETURN(times.emplace_back(),
                     RunStage(config, tokenizer_vocab_size, stage, num_ranks, cost, spec, options));
  }

  StepPlan plan{.peak_flops = cost.peak_flops(), .num_ranks = num_ranks};
  const TrainConfig& train = config.train();
  plan.tokens = static_cast<double>(train.global_batch_size() * train.sequence_length());
  plan.model_flops = 3 * model.ForwardFlopsPerToken(train.sequence_length()) * plan.tokens;
  ASSIGN_OR_RETURN(plan.timeline,
                   SimulateStages(times, spec, MessageSeconds(config, num_ranks, cost)));
  for (const StageTimes& stage : times) plan.stages.push_back(PlanOf(stage, spec));
  double rest = 0;
  for (int s = 0; s < spec.num_stages; ++s) {
    const StagePlan& stage = plan.stages[s];
    rest = std::max(rest, stage.rest.total());
    if (stage.bytes() > plan.peak_bytes()) plan.fullest_stage = s;
    if (WorkOf(stage) > WorkOf(plan.stages[plan.slowest_stage])) plan.slowest_stage = s;
  }
  plan.seconds = plan.timeline.makespan + rest;
  for (StagePlan& stage : plan.stages) stage.bubble = std::max(plan.seconds - WorkOf(stage), 0.0);
  return plan;
}

}  // namespace moebius
