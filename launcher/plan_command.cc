// moebius plan: memory and time of a step before it runs, and which layout is fastest.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>

#include "configs/cluster.h"
#include "configs/validate.h"
#include "core/base/files.h"
#include "launcher/commands.h"
#include "launcher/plan_report.h"
#include "launcher/ranks.h"
#include "train/pipeline_layout.h"
#include "train/planner/calibrate.h"

namespace moebius {
namespace {

struct PlanFlags {
  ConfigFlags config;
  std::string cluster;
  std::string save_cluster;
  std::string output = "text";
  int64_t ranks = 0;  // 0: those of the cluster
  bool search = false;

  bool as_json() const { return output == "json"; }
};

int NumCores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

// What can be refused before this machine is measured.
absl::Status Check(const PlanFlags& flags, const RunConfig& config, int num_ranks) {
  if (flags.cluster.empty() && num_ranks > NumCores()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--ranks %d: ranks that share a core are not planned, and this machine has %d cores; use "
        "at most so many ranks, or describe a cluster with --cluster",
        num_ranks, NumCores()));
  }
  if (!flags.search) {
    RETURN_IF_ERROR(ValidateLayout(config, num_ranks));
    return CheckPipeline(config, num_ranks);
  }
  if (config.parallel().pipeline_layers_size() == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "parallel.pipeline_layers: --search cuts the layers itself, leave it out");
}

absl::Status PlanOne(const PlanFlags& flags, const RunConfig& config, const PlanSubject& subject,
                     int num_ranks, const CostModel& cost) {
  ASSIGN_OR_RETURN(const StepPlan plan,
                   PlanStep(config, subject.tokenizer_vocab_size, num_ranks, cost));
  const std::string text =
      flags.as_json() ? PlanJson(subject, plan).dump(2) + "\n" : PlanText(subject, plan);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

absl::Status PlanBest(const PlanFlags& flags, const RunConfig& config, const PlanSubject& subject,
                      int num_ranks, const CostModel& cost) {
  ASSIGN_OR_RETURN(const SearchResult result,
                   SearchLayouts(config, subject.tokenizer_vocab_size, num_ranks, cost,
                                 {.num_threads = NumCores()}));
  const std::string text =
      flags.as_json() ? SearchJson(subject, result).dump(2) + "\n" : SearchText(subject, result);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

absl::Status Plan(const PlanFlags& flags) {
  if (WorldSize(1) > 1) {
    return absl::InvalidArgumentError(
        "plan runs in a single process; start it without mpirun or srun, with --ranks");
  }
  ASSIGN_OR_RETURN(const RunConfig config, flags.config.Load());
  ClusterConfig cluster;  // one rank, unless it is described
  if (!flags.cluster.empty()) {
    ASSIGN_OR_RETURN(cluster, LoadClusterConfig(flags.cluster));
  }
  const auto num_ranks = static_cast<int>(flags.ranks > 0 ? flags.ranks : cluster.ranks());
  RETURN_IF_ERROR(Check(flags, config, num_ranks));
  if (flags.config.OnlyChecks()) return absl::OkStatus();
  if (flags.cluster.empty()) {
    ASSIGN_OR_RETURN(cluster, Calibrate({.compute = config.precision().compute(),
                                         .num_ranks = num_ranks,
                                         .threads_per_rank = config.run().threads_per_rank()}));
  }
  if (!flags.save_cluster.empty()) {
    RETURN_IF_ERROR(ReplaceFile(flags.save_cluster, PrintCluster(cluster)));
  }
  ASSIGN_OR_RETURN(const CostModel cost, CostModel::Create(cluster, config.precision().compute()));
  const int64_t vocab_size = TokenizerVocabSize(config.data().tokenizer());
  ASSIGN_OR_RETURN(const ModelSpec model, ModelSpec::FromProto(config.model(), vocab_size));
  const PlanSubject subject{.tokenizer_vocab_size = vocab_size,
                            .num_ranks = num_ranks,
                            .device = cluster.device().name(),
                            .memory_bytes = cluster.device().memory_bytes(),
                            .parameters = CountParameters(model)};
  return flags.search ? PlanBest(flags, config, subject, num_ranks, cost)
                      : PlanOne(flags, config, subject, num_ranks, cost);
}

}  // namespace

void AddPlanCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* command =
      app.add_subcommand("plan", "memory and time of a step before it runs, and the best layouts");
  flags->config.AddTo(*command);
  command->add_option("--cluster", flags->cluster,
                      "cluster (text proto); without it this machine is measured");
  command->add_option("--ranks", flags->ranks, "ranks; without it those of the cluster, or one")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command->add_flag("--search", flags->search, "rank legal layouts that fit, fastest first");
  command->add_option("--save_cluster", flags->save_cluster, "write the cluster to this file");
  command->add_option("-o,--output", flags->output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  command->callback([flags, exit_code] { *exit_code = Report(Plan(*flags)); });
}

}  // namespace moebius
