#include "train/planner/search.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "train/planner/parameter_count.h"

namespace moebius {
namespace {

// Bytes on the device of a parameter that is `copies` times in a stage: of value, gradient, and two
// moments.
double BytesOfParameter(int zero_stage, bool moments_on_host, double copies) {
  constexpr double kValue = 4, kGradient = 4;
  const double states = moments_on_host ? 0 : 8;
  return (zero_stage >= 3 ? kValue / copies : kValue) + (zero_stage >= 2 ? 0 : kGradient) +
         (zero_stage >= 1 ? states / copies : states);
}

// Less than an average rank needs: a quick no without a dry run.
double LeastBytes(const RunConfig& config, const ParameterCount& count, int num_ranks,
                  const CostModel& cost) {
  const ParallelConfig& parallel = config.parallel();
  const double stage = num_ranks / parallel.pipeline_size();
  const double dense_cut = parallel.tensor_size();
  const double expert_cut = parallel.expert_size() * parallel.expert_tensor_size();
  const bool moments_on_host = config.optimizer().moments_tier() == OptimizerConfig::HOST &&
                               cost.cluster().device().host_bandwidth() > 0;
  const auto bytes_of = [&](double copies) {
    return BytesOfParameter(parallel.zero_stage(), moments_on_host, copies);
  };
  return (static_cast<double>(count.dense) / dense_cut * bytes_of(stage / dense_cut) +
          static_cast<double>(count.experts) / expert_cut * bytes_of(stage / expert_cut)) /
         parallel.pipeline_size();
}

class Search {
 public:
  Search(const LayoutSpace& space, const ModelSpec& model, int64_t vocab_size, int num_ranks,
         const CostModel& cost, const SearchOptions& options)
      : space_(space),
        parameters_(CountParameters(model)),
        vocab_size_(vocab_size),
        num_ranks_(num_ranks),
        cost_(cost),
        options_(options),
        memory_(cost.cluster().device().memory_bytes()) {}

  absl::StatusOr<SearchResult> Run() {
    const std::vector<RunConfig> axes = space_.LegalAxes();
    std::vector<std::optional<Candidate>> first(axes.size());
    ForAll(axes.size(), [&](size_t i) { first[i] = FirstThatFits(axes[i]); });
    std::vector<Candidate> fitting = Sorted(std::move(first));
    if (fitting.empty()) return NothingFits(axes.size());
    SearchResult result{
        .num_legal = std::ssize(axes), .num_fitting = std::ssize(fitting), .kept = space_.kept()};
    const size_t refined =
        std::min(fitting.size(), static_cast<size_t>(std::max(options_.refine, options_.keep)));
    ForAll(refined, [&](size_t i) { fitting[i] = Refined(std::move(fitting[i])); });
    std::ranges::stable_sort(fitting, &Search::IsFaster);
    fitting.resize(std::min(fitting.size(), static_cast<size_t>(options_.keep)));
    result.best = std::move(fitting);
    result.num_planned = num_planned_;
    result.failures = Failures();
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

  // Nothing if it is illegal, does not fit or fails.
  std::optional<Candidate> Plan(const RunConfig& config) {
    if (!space_.Check(config).ok()) return std::nullopt;
    const double least = LeastBytes(config, parameters_, num_ranks_, cost_);
    if (memory_ > 0 && least > static_cast<double>(memory_)) {
      NeedsAtLeast(static_cast<int64_t>(least));
      return std::nullopt;
    }
    ++num_planned_;
    absl::StatusOr<StepPlan> plan =
        PlanStep(config, vocab_size_, num_ranks_, cost_, {.is_quick = true});
    if (!plan.ok()) {
      const std::lock_guard lock(mutex_);
      failed_[std::string(plan.status().message())].insert(OverridesOf(config));
      return std::nullopt;
    }
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
    for (const RunConfig& layout : LayoutSpace::WithPolicies(axes)) {
      if (auto candidate = Plan(layout)) return candidate;
    }
    return std::nullopt;
  }

  // One change after the other, each kept if it helps.
  Candidate Refined(Candidate best) {
    for (bool improves = true; improves;) {
      improves = false;
      for (const RunConfig& neighbour : space_.NeighboursOf(best.config)) {
        std::optional<Candidate> candidate = Plan(neighbour);
        if (!candidate || candidate->plan.seconds >= best.plan.seconds) continue;
        best = *std::move(candidate);
        improves = true;
      }
    }
    return best;
  }

  static std::vector<Candidate> Sorted(std::vector<std::optional<Candidate>> found) {
    std::vector<Candidate> candidates;
    for (auto& candidate : found) {
      if (candidate) candidates.push_back(*std::move(candidate));
    }
    std::ranges::stable_sort(candidates, &Search::IsFaster);
    return candidates;
  }

  std::vector<SearchFailure> Failures() const {
    std::vector<SearchFailure> failures;
    for (const auto& [reason, layouts] : failed_) {
      failures.push_back({reason, std::ssize(layouts), *layouts.begin()});
    }
    return failures;
  }

  absl::Status NothingFits(size_t num_legal) const {
    if (num_legal == 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("no layout is legal on %d ranks, plain data parallelism for one: %s",
                          num_ranks_, space_.CheckDataParallel().message()));
    }
    std::string sentence = absl::StrFormat("none of %d layouts ", num_legal);
    if (least_peak_ == kNoPeak) {
      absl::StrAppendFormat(&sentence, "can be planned on %d ranks", num_ranks_);
    } else {
      absl::StrAppendFormat(
          &sentence, "fits the %d bytes of a device on %d ranks; the smallest needs %d or more",
          memory_, num_ranks_, least_peak_.load());
    }
    for (const SearchFailure& failure : Failures()) {
      absl::StrAppend(&sentence, "; ", failure.ToString());
    }
    return absl::InvalidArgumentError(sentence);
  }

  static constexpr int64_t kNoPeak = std::numeric_limits<int64_t>::max();

  const LayoutSpace& space_;
  const ParameterCount parameters_;
  const int64_t vocab_size_;
  const int num_ranks_;
  const CostModel& cost_;
  const SearchOptions options_;
  const int64_t memory_;
  std::atomic<int64_t> num_planned_ = 0;
  std::atomic<int64_t> least_peak_ = kNoPeak;
  std::mutex mutex_;
  std::map<std::string, std::set<std::string>> failed_;  // layouts by reason
};

}  // namespace

std::string SearchFailure::ToString() const {
  return absl::StrFormat("%d %s could not be planned: %s (%s)", count,
                         count == 1 ? "layout" : "layouts", reason, example);
}

absl::StatusOr<SearchResult> SearchLayouts(const RunConfig& config, int64_t tokenizer_vocab_size,
                                           int num_ranks, const CostModel& cost,
                                           const SearchOptions& options) {
  ASSIGN_OR_RETURN(const ModelSpec model,
                   ModelSpec::FromProto(config.model(), tokenizer_vocab_size));
  ASSIGN_OR_RETURN(const LayoutSpace space,
                   LayoutSpace::Create(config, num_ranks, cost.cluster().ranks_per_node()));
  return Search(space, model, tokenizer_vocab_size, num_ranks, cost, options).Run();
}

}  // namespace moebius
