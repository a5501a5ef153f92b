// moebius eval: held-out loss and bits per byte of a checkpoint, by domain.
#include <cstdio>
#include <filesystem>
#include <memory>

#include "launcher/checkpoint_path.h"
#include "launcher/commands.h"
#include "launcher/ranks.h"
#include "train/agreement.h"
#include "train/evaluate.h"
#include "train/loaded_model.h"

namespace moebius {
namespace {

struct EvalFlags {
  ConfigFlags config;
  std::string checkpoint;
  std::string output = "table";
  int ranks = 1;
};

void Print(const std::vector<DomainEvaluation>& domains, bool json) {
  double mean = 0;
  if (!json) std::printf("%-16s %10s %12s %12s\n", "domain", "loss", "bits/byte", "bytes");
  for (const DomainEvaluation& d : domains) {
    std::printf(json ? "{\"domain\": \"%s\", \"loss\": %.17g, \"bits_per_byte\": %.17g, "
                       "\"text_bytes\": %lld}\n"
                     : "%-16s %10.4f %12.4f %12lld\n",
                d.domain.c_str(), d.loss, d.bits_per_byte, static_cast<long long>(d.text_bytes));
    mean += d.bits_per_byte / static_cast<double>(domains.size());
  }
  if (!json) std::printf("%-16s %10s %12.4f\n", "mean", "", mean);
}

// One rank holds everything, whatever the training layout was. Several hold what they do in
// training, but that every one has all layers.
ParallelSizes SizesOf(const ParallelConfig& config, int world_size) {
  if (world_size == 1) return {};
  return {.tensor = config.tensor_size(),
          .context = config.context_size(),
          .expert = config.expert_size(),
          .expert_tensor = config.expert_tensor_size()};
}

absl::Status EvaluateCheckpoint(const EvalFlags& flags, const RunConfig& config,
                                Communicator& world, const RankCores& cores) {
  ASSIGN_OR_RETURN(const std::string path, ResolveCheckpoint(flags.checkpoint));
  auto dataset = Dataset::Open(config.data().dir());
  RETURN_IF_ERROR(Agree(world, dataset.status()));
  auto loaded = LoadedModel::Load(path, SizesOf(config.parallel(), world.size()), world,
                                  {.num_threads = cores.num_threads, .cores = cores.cores});
  RETURN_IF_ERROR(Agree(world, loaded.status()));
  const int64_t model_vocab = (*loaded)->model().spec().vocab_size;
  if (dataset->vocab_size() > model_vocab) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: its vocabulary of %d tokens is larger than the model's of %d: it was prepared with "
        "another tokenizer",
        dataset->folder(), dataset->vocab_size(), model_vocab));
  }
  const auto domains = Evaluate(
      (*loaded)->model(), (*loaded)->weights(), *dataset,
      {.sequence_length = config.train().sequence_length(),
       .micro_batch_size = config.train().micro_batch_size(),
       .max_tokens_per_domain = config.train().eval_max_tokens_per_domain(),
       .attention_within_documents = config.data().document_attention() == DataConfig::WITHIN},
      (*loaded)->mesh(), (*loaded)->context());
  if (world.rank() == 0) Print(domains, flags.output == "json");
  return absl::OkStatus();
}

absl::Status Eval(const EvalFlags& flags) {
  ASSIGN_OR_RETURN(const RunConfig config, flags.config.Load());
  if (flags.config.OnlyChecks()) return absl::OkStatus();
  const std::string board = config.run().dir() + "/eval_board";  // the run itself may be going on
  if (SpeaksForAll()) {
    std::error_code error;
    std::filesystem::create_directories(config.run().dir(), error);
    if (error) return absl::ErrnoToStatus(error.value(), config.run().dir());
  }
  return RunRanks({.thread_ranks = flags.ranks,
                   .threads_per_rank = config.run().threads_per_rank(),
                   .board_directory = board},
                  [&](Communicator& world, const RankCores& cores) {
                    return EvaluateCheckpoint(flags, config, world, cores);
                  });
}

}  // namespace

void AddEvalCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand("eval", "held-out loss and bits per byte, by domain");
  flags->config.AddTo(*command);
  command->add_option("--checkpoint", flags->checkpoint, "a checkpoint, or a run (its newest)")
      ->required();
  command->add_option("--ranks", flags->ranks, "ranks as threads of this process")
      ->check(CLI::Range(1, 1024));
  command->add_option("-o", flags->output, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Report(Eval(*flags)); });
}

}  // namespace moebius
