#include "train/planner/layout_space.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "configs/validate.h"
#include "train/pipeline_layout.h"

namespace moebius {
namespace {

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

bool HasLossOf(const RunConfig& config, BalanceLossConfig::Scope scope) {
  const auto& losses = config.model().moe().balance().loss();
  return config.model().moe().num_experts() > 0 &&
         std::ranges::any_of(losses, [&](const auto& loss) { return loss.scope() == scope; });
}

std::vector<std::pair<ParallelConfig::PipelineSchedule, int>> SchedulesOf(int64_t num_layers,
                                                                          int p) {
  if (p == 1) return {};
  std::vector<std::pair<ParallelConfig::PipelineSchedule, int>> schedules = {
      {ParallelConfig::ZB_H1, 1}, {ParallelConfig::ZB_V, 2}};
  for (const int chunks : {2, 4, 8}) {
    if (chunks <= num_layers / p) schedules.push_back({ParallelConfig::INTERLEAVED, chunks});
  }
  return schedules;
}

}  // namespace

absl::StatusOr<LayoutSpace> LayoutSpace::Create(const RunConfig& config, int num_ranks,
                                                int64_t ranks_per_node) {
  LayoutSpace space(config, num_ranks, ranks_per_node);
  if (HasLossOf(config, BalanceLossConfig::MICRO_BATCH)) {
    space.kept_.micro_batch_size = config.train().micro_batch_size();
  }
  if (config.model().moe().balance().global_counts() != BalanceConfig::RUNNING ||
      !HasLossOf(config, BalanceLossConfig::GLOBAL_BATCH)) {
    return space;
  }
  if (const absl::Status status = ValidateLayout(config, num_ranks); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.moe.balance.global_counts: results under RUNNING depend on the number of "
        "micro-batches of a rank, which --search keeps; give a layout that has one on %d ranks: %s",
        num_ranks, status.message()));
  }
  space.kept_.num_micro_batches = PipelineOf(config, num_ranks).num_micro_batches;
  return space;
}

// Groups of so many consecutive ranks.
bool LayoutSpace::SpanNodes(int size) const {
  return num_ranks_ > ranks_per_node_ && ranks_per_node_ % size != 0;
}

RunConfig LayoutSpace::WithAxes(const ParallelConfig& sizes) const {
  RunConfig layout = config_;
  ParallelConfig* parallel = layout.mutable_parallel();
  parallel->MergeFrom(sizes);
  parallel->set_pipeline_schedule(ParallelConfig::ONE_F_ONE_B);
  parallel->set_virtual_pipeline_size(1);
  parallel->clear_pipeline_layers();
  int64_t size = std::max<int64_t>(kept_.micro_batch_size, 1);
  if (kept_.num_micro_batches > 0 && kept_.micro_batch_size == 0) {
    layout.mutable_train()->set_micro_batch_size(1);
    const int64_t sequences = PipelineOf(layout, num_ranks_).num_micro_batches;  // of a rank
    size = std::max<int64_t>(sequences / kept_.num_micro_batches, 1);
  }
  layout.mutable_train()->set_micro_batch_size(size);
  return layout;
}

std::vector<RunConfig> LayoutSpace::LegalAxes() const {
  const int64_t layers = config_.model().num_layers();
  const int64_t experts = std::max<int64_t>(config_.model().moe().num_experts(), 1);
  std::vector<RunConfig> legal;
  ParallelConfig sizes;
  for (const int pipeline : DivisorsOf(num_ranks_, layers)) {
    sizes.set_pipeline_size(pipeline);
    const int stage = num_ranks_ / pipeline;
    for (const int tensor : DivisorsOf(stage, stage)) {
      if (SpanNodes(tensor)) continue;
      sizes.set_tensor_size(tensor);
      for (const int context : DivisorsOf(stage / tensor, stage)) {
        sizes.set_context_size(context);
        for (const int expert_tensor : DivisorsOf(stage, stage)) {
          if (SpanNodes(expert_tensor)) continue;
          sizes.set_expert_tensor_size(expert_tensor);
          for (const int expert : DivisorsOf(stage / expert_tensor, experts)) {
            sizes.set_expert_size(expert);
            RunConfig layout = WithAxes(sizes);
            if (Check(layout).ok()) legal.push_back(std::move(layout));
          }
        }
      }
    }
  }
  return legal;
}

std::vector<RunConfig> LayoutSpace::WithPolicies(const RunConfig& axes) {
  std::vector<RunConfig> layouts;
  for (const Policy& policy : kPolicies) {
    RunConfig& layout = layouts.emplace_back(axes);
    layout.mutable_parallel()->set_recompute(policy.recompute);
    layout.mutable_parallel()->set_zero_stage(policy.zero_stage);
  }
  return layouts;
}

std::vector<RunConfig> LayoutSpace::NeighboursOf(const RunConfig& layout) const {
  std::vector<RunConfig> neighbours = {layout};
  neighbours[0].mutable_train()->set_micro_batch_size(2 * layout.train().micro_batch_size());
  const int p = layout.parallel().pipeline_size();
  for (const auto& [schedule, chunks] : SchedulesOf(config_.model().num_layers(), p)) {
    ParallelConfig* parallel = neighbours.emplace_back(layout).mutable_parallel();
    parallel->set_pipeline_schedule(schedule);
    parallel->set_virtual_pipeline_size(chunks);
  }
  std::ranges::move(WithPolicies(layout), std::back_inserter(neighbours));
  return neighbours;
}

absl::Status LayoutSpace::Check(const RunConfig& layout) const {
  if (const std::vector<ConfigError> errors = FindErrors(layout); !errors.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(errors[0].path, ": ", errors[0].message));
  }
  RETURN_IF_ERROR(ValidateLayout(layout, num_ranks_));
  RETURN_IF_ERROR(CheckPipeline(layout, num_ranks_));
  const int64_t size = layout.train().micro_batch_size();
  if (kept_.micro_batch_size > 0 && size != kept_.micro_batch_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("train.micro_batch_size: found %d, must stay %d under balance losses with "
                        "scope MICRO_BATCH",
                        size, kept_.micro_batch_size));
  }
  const int64_t number = PipelineOf(layout, num_ranks_).num_micro_batches;
  if (kept_.num_micro_batches == 0 || number == kept_.num_micro_batches) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "train.micro_batch_size: %d makes %d micro-batches a rank, must stay %d under "
      "global_counts RUNNING",
      size, number, kept_.num_micro_batches));
}

absl::Status LayoutSpace::CheckDataParallel() const {
  ParallelConfig sizes;
  for (const auto set : {&ParallelConfig::set_pipeline_size, &ParallelConfig::set_tensor_size,
                         &ParallelConfig::set_context_size, &ParallelConfig::set_expert_size,
                         &ParallelConfig::set_expert_tensor_size}) {
    (sizes.*set)(1);
  }
  return Check(WithAxes(sizes));
}

std::string OverridesOf(const RunConfig& layout) {
  const ParallelConfig& parallel = layout.parallel();
  return absl::StrFormat(
      "--set parallel.tensor_size=%d --set parallel.pipeline_size=%d --set "
      "parallel.context_size=%d --set parallel.expert_size=%d --set "
      "parallel.expert_tensor_size=%d --set parallel.zero_stage=%d --set parallel.recompute=%s "
      "--set parallel.pipeline_schedule=%s --set parallel.virtual_pipeline_size=%d --set "
      "train.micro_batch_size=%d",
      parallel.tensor_size(), parallel.pipeline_size(), parallel.context_size(),
      parallel.expert_size(), parallel.expert_tensor_size(), parallel.zero_stage(),
      ParallelConfig::Recompute_Name(parallel.recompute()),
      ParallelConfig::PipelineSchedule_Name(parallel.pipeline_schedule()),
      parallel.virtual_pipeline_size(), layout.train().micro_batch_size());
}

}  // namespace moebius
