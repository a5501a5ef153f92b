#include "launcher/plan_report.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "train/metrics/console.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;
using Kind = Action::Kind;

constexpr double kMiB = 1 << 20;

double Share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string Whole(double x) { return FormatWithCommas(static_cast<int64_t>(x)); }

std::string SubjectText(const PlanSubject& subject) {
  std::string text;
  absl::StrAppendFormat(&text, "%-18s %s, %s active\n", "parameters",
                        FormatWithCommas(subject.parameters.total()),
                        FormatWithCommas(subject.parameters.active()));
  absl::StrAppendFormat(&text, "%-18s %d of \"%s\"\n", "ranks", subject.num_ranks, subject.device);
  return text;
}

// Of the kinds of memory, by name.
std::vector<std::pair<const char*, int64_t>> KindsOf(const RankMemory& memory) {
  return {{"parameters", memory.parameters},   {"weights", memory.weights},
          {"gradients", memory.gradients},     {"states", memory.states},
          {"activations", memory.activations}, {"buffers", memory.buffers},
          {"scratch", memory.scratch}};
}

std::string MemoryText(const PlanSubject& subject, const StepPlan& plan) {
  std::string text = absl::StrFormat("%-10s", "MiB");
  for (const auto& [kind, bytes] : KindsOf({})) absl::StrAppendFormat(&text, " %11s", kind);
  absl::StrAppendFormat(&text, " %11s %11s\n", "peak", "host");
  const int ranks_of_stage = subject.num_ranks / static_cast<int>(plan.stages.size());
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    absl::StrAppendFormat(&text, "rank %-5d", static_cast<int>(s) * ranks_of_stage);
    for (const auto& [kind, bytes] : KindsOf(stage.memory)) {
      absl::StrAppendFormat(&text, " %11.1f", static_cast<double>(bytes) / kMiB);
    }
    absl::StrAppendFormat(&text, " %11.1f %11.1f%s\n", static_cast<double>(stage.bytes()) / kMiB,
                          static_cast<double>(stage.memory.host) / kMiB,
                          static_cast<int>(s) == plan.fullest_stage ? "  the fullest" : "");
  }
  if (subject.memory_bytes > 0) {
    absl::StrAppendFormat(&text, "%s the %.1f of a device\n",
                          plan.peak_bytes() <= subject.memory_bytes ? "fits" : "DOES NOT FIT",
                          static_cast<double>(subject.memory_bytes) / kMiB);
  }
  return text;
}

std::string StageLine(const std::string& name, const StagePlan& stage, double seconds) {
  const double compute = stage.micro_batches.compute + stage.rest.compute;
  const double exchange = stage.micro_batches.exchange + stage.rest.exchange;
  return absl::StrFormat("%-10s %11.4f s %4.0f%% %11.4f s %4.0f%% %11.4f s %4.0f%% %11.4f s\n",
                         name, compute, Share(compute, seconds), exchange, Share(exchange, seconds),
                         stage.bubble, Share(stage.bubble, seconds), stage.rest.total());
}

using NamedOp = std::pair<std::string, OpTime>;

std::vector<NamedOp> LongestOps(const StagePlan& stage) {
  std::vector<NamedOp> ops(stage.ops.begin(), stage.ops.end());
  std::ranges::stable_sort(
      ops, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return ops;
}

OpTime Together(std::span<const NamedOp> ops) {
  OpTime sum;
  for (const auto& [name, op] : ops) {
    sum.count += op.count;
    sum.seconds += op.seconds;
  }
  return sum;
}

std::string OpLine(const std::string& name, const OpTime& op, double whole) {
  const std::string rate =
      op.flops > 0 ? absl::StrFormat("%.1f TFLOP/s", op.flops / op.seconds / 1e12) : "";
  return absl::StrFormat("%-26s %9d %11.4f s %5.1f%% %14s\n", name, op.count, op.seconds,
                         Share(op.seconds, whole), rate);
}

// The longest ones, the others together, and all: the stage's compute and exchange.
std::string OpLines(const StepPlan& plan) {
  constexpr size_t kMost = 12;
  const std::vector<NamedOp> ops = LongestOps(plan.stages[plan.slowest_stage]);
  const std::span<const NamedOp> all = ops, longest = all.first(std::min(ops.size(), kMost));
  const OpTime sum = Together(all);
  std::string text = absl::StrFormat("%-26s %9s %13s %6s %14s\n",
                                     absl::StrCat("stage ", plan.slowest_stage, ", a whole step"),
                                     "calls", "seconds", "share", "rate");
  for (const auto& [name, op] : longest) text += OpLine(name, op, sum.seconds);
  if (const auto others = all.subspan(longest.size()); !others.empty()) {
    text += OpLine(absl::StrCat(others.size(), " others"), Together(others), sum.seconds);
  }
  return text + OpLine("together", sum, sum.seconds);
}

char LetterOf(const Action& action) {
  switch (action.kind) {
    case Kind::kForward:
      return 'F';
    case Kind::kWeightGradients:
      return 'W';
    default:
      return 'B';
  }
}

// A row of letters a stage; '.' where it waits.
std::string TimelineText(const Simulation& timeline) {
  constexpr int kColumns = 88;
  std::string text = "timeline: F forward, B backward, W weight gradients, . bubble\n";
  for (size_t s = 0; s < timeline.stages.size(); ++s) {
    std::string row(kColumns, '.');
    for (const TimedAction& timed : timeline.stages[s].timeline) {
      const double scale = kColumns / timeline.makespan;
      const int begin = static_cast<int>(timed.start * scale);
      const int end = std::max(begin + 1, static_cast<int>(timed.end * scale));
      for (int i = begin; i < std::min(end, kColumns); ++i) row[i] = LetterOf(timed.action);
    }
    absl::StrAppendFormat(&text, "stage %-3d |%s|\n", s, row);
  }
  return text;
}

Json TimeJson(const RankTime& time) {
  return {{"compute_seconds", time.compute}, {"exchange_seconds", time.exchange}};
}

Json StageJson(const StagePlan& stage, const StageSimulation& simulation) {
  Json bytes;
  for (const auto& [kind, number] : KindsOf(stage.memory)) bytes[kind] = number;
  bytes["peak"] = stage.bytes();
  bytes["host"] = stage.memory.host;
  Json ops = Json::array();
  for (const auto& [name, time] : LongestOps(stage)) {
    ops.push_back({{"name", name}, {"count", time.count}, {"seconds", time.seconds}});
  }
  Json actions = Json::array();
  for (const TimedAction& timed : simulation.timeline) {
    actions.push_back({{"kind", std::string(1, LetterOf(timed.action))},
                       {"chunk", timed.action.chunk},
                       {"micro_batch", timed.action.micro_batch},
                       {"start", timed.start},
                       {"end", timed.end}});
  }
  return {{"micro_batches", TimeJson(stage.micro_batches)},
          {"rest", TimeJson(stage.rest)},
          {"bubble_seconds", stage.bubble},
          {"bytes", std::move(bytes)},
          {"ops", std::move(ops)},
          {"timeline", std::move(actions)}};
}

std::string ScheduleOf(const ParallelConfig& parallel) {
  if (parallel.pipeline_size() == 1) return "-";
  const std::string name = ParallelConfig::PipelineSchedule_Name(parallel.pipeline_schedule());
  if (parallel.virtual_pipeline_size() == 1) return name;
  return absl::StrCat(name, " x ", parallel.virtual_pipeline_size());
}

// "train.micro_batch_size 4, which balance losses with scope MICRO_BATCH depend on".
std::string KeptText(const KeptByLayouts& kept) {
  std::vector<std::string> parts;
  if (kept.micro_batch_size > 0) {
    parts.push_back(absl::StrCat("train.micro_batch_size ", kept.micro_batch_size,
                                 ", which balance losses with scope MICRO_BATCH depend on"));
  }
  if (kept.num_micro_batches > 0) {
    parts.push_back(absl::StrCat(kept.num_micro_batches, " micro-batches a rank",
                                 ", which global_counts RUNNING depends on"));
  }
  return absl::StrJoin(parts, "; ");
}

Json RatesJson(const StepPlan& plan) {
  return {{"seconds", plan.seconds},
          {"tokens", plan.tokens},
          {"tokens_per_second", plan.tokens_per_second()},
          {"tokens_per_second_per_rank", plan.tokens_per_second() / plan.num_ranks},
          {"model_flops", plan.model_flops},
          {"model_flops_per_second_per_rank", plan.flops_per_rank()},
          {"peak_flops_per_second_per_rank", plan.peak_flops},
          {"mfu", plan.mfu()}};
}

Json SubjectJson(const PlanSubject& subject) {
  return {{"parameters",
           {{"total", subject.parameters.total()}, {"active", subject.parameters.active()}}},
          {"ranks", subject.num_ranks},
          {"device", {{"name", subject.device}, {"memory_bytes", subject.memory_bytes}}}};
}

std::string TimeText(const StepPlan& plan) {
  std::string text;
  absl::StrAppendFormat(&text, "%-18s %.4f s predicted\n", "step", plan.seconds);
  absl::StrAppendFormat(&text, "%-18s %s, %s a rank\n", "tokens/s", Whole(plan.tokens_per_second()),
                        Whole(plan.tokens_per_second() / plan.num_ranks));
  absl::StrAppendFormat(&text, "%-18s %.4g in a step\n", "model FLOPs", plan.model_flops);
  absl::StrAppendFormat(&text, "%-18s %.1f%%: %.4g TFLOP/s of %.4g a rank\n", "MFU",
                        100 * plan.mfu(), plan.flops_per_rank() / 1e12, plan.peak_flops / 1e12);
  absl::StrAppendFormat(&text, "\n%-10s %19s %19s %19s %13s\n", "stage", "compute", "exchange",
                        "bubble", "of it, rest");
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    text += StageLine(absl::StrCat(s), plan.stages[s], plan.seconds);
  }
  if (plan.stages.size() > 1) absl::StrAppend(&text, "\n", TimelineText(plan.timeline));
  return text;
}

}  // namespace

std::string PlanText(const PlanSubject& subject, const StepPlan& plan) {
  return absl::StrCat(SubjectText(subject), TimeText(plan), "\n", MemoryText(subject, plan), "\n",
                      OpLines(plan));
}

Json PlanJson(const PlanSubject& subject, const StepPlan& plan) {
  Json json = SubjectJson(subject);
  json["step"] = RatesJson(plan);
  const int ranks_of_stage = subject.num_ranks / static_cast<int>(plan.stages.size());
  json["fullest_rank"] = plan.fullest_stage * ranks_of_stage;
  json["peak_bytes"] = plan.peak_bytes();
  json["host_bytes"] = plan.host_bytes();
  json["stages"] = Json::array();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    json["stages"].push_back(StageJson(plan.stages[s], plan.timeline.stages[s]));
  }
  return json;
}

std::string SearchText(const PlanSubject& subject, const SearchResult& result) {
  std::string text = SubjectText(subject);
  absl::StrAppendFormat(&text, "%-18s %d sizes of axes are legal, %d of them fit; %d ran dry\n",
                        "layouts", result.num_legal, result.num_fitting, result.num_planned);
  if (const std::string kept = KeptText(result.kept); !kept.empty()) {
    absl::StrAppendFormat(&text, "%-18s %s\n", "kept", kept);
  }
  for (const SearchFailure& failure : result.failures) {
    absl::StrAppendFormat(&text, "%-18s %s\n", "failed", failure.ToString());
  }
  text += "\n";
  absl::StrAppendFormat(&text, "%6s %8s %7s %6s %6s  %-16s %4s %-9s %5s %12s %6s %9s %9s\n",
                        "tensor", "pipeline", "context", "expert", "exp_tp", "schedule", "zero",
                        "recompute", "micro", "tokens/s", "MFU", "peak MiB", "host MiB");
  for (const Candidate& candidate : result.best) {
    const ParallelConfig& parallel = candidate.config.parallel();
    absl::StrAppendFormat(
        &text, "%6d %8d %7d %6d %6d  %-16s %4d %-9s %5d %12s %5.1f%% %9.0f %9.0f\n",
        parallel.tensor_size(), parallel.pipeline_size(), parallel.context_size(),
        parallel.expert_size(), parallel.expert_tensor_size(), ScheduleOf(parallel),
        parallel.zero_stage(), ParallelConfig::Recompute_Name(parallel.recompute()),
        candidate.config.train().micro_batch_size(),
        FormatWithCommas(static_cast<int64_t>(candidate.plan.tokens_per_second())),
        100 * candidate.plan.mfu(), static_cast<double>(candidate.plan.peak_bytes()) / kMiB,
        static_cast<double>(candidate.plan.host_bytes()) / kMiB);
  }
  return absl::StrCat(text, "\nthe first one: ", OverridesOf(result.best.front().config), "\n");
}

Json SearchJson(const PlanSubject& subject, const SearchResult& result) {
  Json layouts = Json::array();
  for (const Candidate& candidate : result.best) {
    Json layout = RatesJson(candidate.plan);
    layout["overrides"] = OverridesOf(candidate.config);
    layout["peak_bytes"] = candidate.plan.peak_bytes();
    layout["host_bytes"] = candidate.plan.host_bytes();
    layouts.push_back(std::move(layout));
  }
  Json failed = Json::array();
  for (const SearchFailure& failure : result.failures) {
    failed.push_back(
        {{"reason", failure.reason}, {"count", failure.count}, {"example", failure.example}});
  }
  Json json = SubjectJson(subject);
  json["legal"] = result.num_legal;
  json["fitting"] = result.num_fitting;
  json["planned"] = result.num_planned;
  json["kept"] = {{"micro_batch_size", result.kept.micro_batch_size},
                  {"num_micro_batches", result.kept.num_micro_batches}};
  json["failed"] = std::move(failed);
  json["layouts"] = std::move(layouts);
  return json;
}

}  // namespace moebius
