#include "train/planner/search.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "configs/validate.h"
#include "train/pipeline_layout.h"
#include "train/planner/parameter_count.h"

namespace moebius {
namespace {

// What a layout may do against too little memory, from the fastest on.
struct Policy {
  ParallelConfig::Recompute recompute;
  int zero_stage;
};
constexpr Policy kPolicies[] = {
    {ParallelConfig::NONE, 1}, {ParallelConfig::SELECTIVE, 1}, {ParallelConfig::FULL, 1},
    {ParallelConfig::NONE, 3}, {ParallelConfig::FULL, 2},      {ParallelConfig::FULL, 3},
};

std::vector<int> DivisorsOf(int64_t number, int64_t limit) {
  std::vector<int> divisors;
  for (int64_t d = 1; d <= std::min(number, limit); ++d) {
    if (number % d == 0) divisors.push_back(static_cast<int>(d));
  }
  return divisors;
}

bool IsLegal(const RunConfig& config, int num_ranks) {
  return FindErrors(config).empty() && ValidateLayout(config, num_ranks).ok() &&
         CheckPipeline(config, num_ranks).ok();
}

// Bytes of a parameter that is `copies` times in a stage: of value, gradient, and two moments.
double BytesOfParameter(int zero_stage, double copies) {
  constexpr double kValue = 4, kGradient = 4, kStates = 8;
  return (zero_stage >= 3 ? kValue / copies : kValue) + (zero_stage >= 2 ? 0 : kGradient) +
         (zero_stage >= 1 ? kStates / copies : kStates);
}

// Less than an average rank needs: a quick no without a dry run.
double LeastBytes(const RunConfig& config, const ParameterCount& count, int num_ranks) {
  const ParallelConfig& parallel = config.parallel();
  const double stage = num_ranks / parallel.pipeline_size();
  const double dense_cut = parallel.tensor_size();
  const double expert_cut = parallel.expert_size() * parallel.expert_tensor_size();
  return (static_cast<double>(count.dense) / dense_cut *
              BytesOfParameter(parallel.zero_stage(), stage / dense_cut) +
          static_cast<double>(count.experts) / expert_cut *
              BytesOfParameter(parallel.zero_stage(), stage / expert_cut)) /
         parallel.pipeline_size();
}

class Search {
 public:
  Search(const RunConfig& config, const ModelSpec& model, int64_t vocab_size, int num_ranks,
         const CostModel& cost, const SearchOptions& options)
      : config_(config),
        parameters_(CountParameters(model)),
        vocab_size_(vocab_size),
        num_ranks_(num_ranks),
        cost_(cost),
        options_(options),
        memory_(cost.cluster().device().memory_bytes()) {}

  absl::StatusOr<SearchResult> Run() {
    std::vector<RunConfig> axes = LegalAxes();
    std::vector<std::optional<Candidate>> first(axes.size());
    ForAll(axes.size(), [&](size_t i) { first[i] = FirstThatFits(axes[i]); });
    std::vector<Candidate> fitting = Sorted(std::move(first));
    if (fitting.empty()) return NothingFits(axes.size());
    SearchResult result{.num_legal = std::ssize(axes), .num_fitting = std::ssize(fitting)};
    const size_t refined =
        std::min(fitting.size(), static_cast<size_t>(std::max(options_.refine, options_.keep)));
    ForAll(refined, [&](size_t i) { fitting[i] = Refined(std::move(fitting[i])); });
    std::ranges::stable_sort(fitting, &Search::IsFaster);
    fitting.resize(std::min(fitting.size(), static_cast<size_t>(options_.keep)));
    result.best = std::move(fitting);
    result.num_planned = num_planned_;
    return result;
  }

 private:
  static bool IsFaster(const Candidate& a, const Candidate& b) {
    return a.plan.seconds < b.plan.seconds;
  }

  template <class Fn>
  void ForAll(size_t count, const Fn& fn) {
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i = next++; i < count; i = next++) fn(i);
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < options_.num_threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
  }

  // Of groups of so many consecutive ranks.
  bool SpanNodes(int size) const {
    const int64_t node = cost_.cluster().ranks_per_node();
    return num_ranks_ > node && node % size != 0;
  }

  // One sequence a micro-batch, 1F1B.
  std::vector<RunConfig> LegalAxes() const {
    const int64_t layers = config_.model().num_layers();
    const int64_t experts = std::max<int64_t>(config_.model().moe().num_experts(), 1);
    std::vector<RunConfig> legal;
    for (const int pipeline : DivisorsOf(num_ranks_, layers)) {
      const int stage = num_ranks_ / pipeline;
      for (const int tensor : DivisorsOf(stage, stage)) {
        if (SpanNodes(tensor)) continue;
        for (const int context : DivisorsOf(stage / tensor, stage)) {
          for (const int expert_tensor : DivisorsOf(stage, stage)) {
            if (SpanNodes(expert_tensor)) continue;
            for (const int expert : DivisorsOf(stage / expert_tensor, experts)) {
              RunConfig config = config_;
              ParallelConfig* parallel = config.mutable_parallel();
              parallel->set_pipeline_size(pipeline);
              parallel->set_tensor_size(tensor);
              parallel->set_context_size(context);
              parallel->set_expert_size(expert);
              parallel->set_expert_tensor_size(expert_tensor);
              parallel->set_pipeline_schedule(ParallelConfig::ONE_F_ONE_B);
              parallel->set_virtual_pipeline_size(1);
              parallel->clear_pipeline_layers();
              config.mutable_train()->set_micro_batch_size(1);
              if (IsLegal(config, num_ranks_)) legal.push_back(std::move(config));
            }
          }
        }
      }
    }
    return legal;
  }

  // Nothing if it is illegal or does not fit.
  std::optional<Candidate> Plan(const RunConfig& config) {
    if (!IsLegal(config, num_ranks_)) return std::nullopt;
    const double least = LeastBytes(config, parameters_, num_ranks_);
    if (memory_ > 0 && least > static_cast<double>(memory_)) {
      NeedsAtLeast(static_cast<int64_t>(least));
      return std::nullopt;
    }
    ++num_planned_;
    absl::StatusOr<StepPlan> plan =
        PlanStep(config, vocab_size_, num_ranks_, cost_, {.is_quick = true});
    if (!plan.ok()) return std::nullopt;
    if (memory_ > 0 && plan->peak_bytes() > memory_) {
      NeedsAtLeast(plan->peak_bytes());
      return std::nullopt;
    }
    return Candidate{config, *std::move(plan)};
  }

  void NeedsAtLeast(int64_t bytes) {
    int64_t least = least_peak_;
    while (bytes < least && !least_peak_.compare_exchange_weak(least, bytes)) {
    }
  }

  std::optional<Candidate> FirstThatFits(const RunConfig& axes) {
    for (const Policy& policy : kPolicies) {
      if (auto candidate = Plan(With(axes, policy))) return candidate;
    }
    return std::nullopt;
  }

  static RunConfig With(const RunConfig& axes, const Policy& policy) {
    RunConfig config = axes;
    config.mutable_parallel()->set_recompute(policy.recompute);
    config.mutable_parallel()->set_zero_stage(policy.zero_stage);
    return config;
  }

  // One change after the other, each kept if it helps.
  Candidate Refined(Candidate best) {
    for (bool improves = true; improves;) {
      improves = false;
      for (const RunConfig& neighbour : NeighboursOf(best.config)) {
        std::optional<Candidate> candidate = Plan(neighbour);
        if (!candidate || candidate->plan.seconds >= best.plan.seconds) continue;
        best = *std::move(candidate);
        improves = true;
      }
    }
    return best;
  }

  std::vector<RunConfig> NeighboursOf(const RunConfig& config) const {
    std::vector<RunConfig> neighbours;
    const auto add = [&](const auto& change) {
      RunConfig changed = config;
      change(changed);
      neighbours.push_back(std::move(changed));
    };
    add([](RunConfig& c) {
      c.mutable_train()->set_micro_batch_size(2 * c.train().micro_batch_size());
    });
    const int p = config.parallel().pipeline_size();
    for (const auto& [schedule, chunks] : SchedulesOf(p)) {
      add([&](RunConfig& c) {
        c.mutable_parallel()->set_pipeline_schedule(schedule);
        c.mutable_parallel()->set_virtual_pipeline_size(chunks);
      });
    }
    for (const Policy& policy : kPolicies) {
      add([&](RunConfig& c) { c = With(c, policy); });
    }
    return neighbours;
  }

  std::vector<std::pair<ParallelConfig::PipelineSchedule, int>> SchedulesOf(int p) const {
    if (p == 1) return {};
    std::vector<std::pair<ParallelConfig::PipelineSchedule, int>> schedules = {
        {ParallelConfig::ZB_H1, 1}, {ParallelConfig::ZB_V, 2}};
    const int64_t layers_of_stage = config_.model().num_layers() / p;
    for (const int chunks : {2, 4, 8}) {
      if (chunks <= layers_of_stage) schedules.push_back({ParallelConfig::INTERLEAVED, chunks});
    }
    return schedules;
  }

  static std::vector<Candidate> Sorted(std::vector<std::optional<Candidate>> found) {
    std::vector<Candidate> candidates;
    for (auto& candidate : found) {
      if (candidate) candidates.push_back(*std::move(candidate));
    }
    std::ranges::stable_sort(candidates, &Search::IsFaster);
    return candidates;
  }

  absl::Status NothingFits(size_t num_legal) const {
    if (num_legal == 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("no layout is legal on %d ranks: train.global_batch_size %d must be a "
                          "multiple of some data-parallel size",
                          num_ranks_, config_.train().global_batch_size()));
    }
    return absl::InvalidArgumentError(
        absl::StrFormat("none of %d layouts fits the %d bytes of a device on %d ranks; the "
                        "smallest needs %d or more",
                        num_legal, memory_, num_ranks_, least_peak_.load()));
  }

  const RunConfig& config_;
  const ParameterCount parameters_;
  const int64_t vocab_size_;
  const int num_ranks_;
  const CostModel& cost_;
  const SearchOptions options_;
  const int64_t memory_;
  std::atomic<int64_t> num_planned_ = 0;
  std::atomic<int64_t> least_peak_ = std::numeric_limits<int64_t>::max();
};

}  // namespace

absl::StatusOr<SearchResult> SearchLayouts(const RunConfig& config, int64_t tokenizer_vocab_size,
                                           int num_ranks, const CostModel& cost,
                                           const SearchOptions& options) {
  ASSIGN_OR_RETURN(const ModelSpec model,
                   ModelSpec::FromProto(config.model(), tokenizer_vocab_size));
  return Search(config, model, tokenizer_vocab_size, num_ranks, cost, options).Run();
}

}  // namespace moebius
