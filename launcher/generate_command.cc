// moebius generate: text from a checkpoint.
#include <cstdio>
#include <memory>

#include "launcher/checkpoint_path.h"
#include "launcher/commands.h"
#include "launcher/ranks.h"
#include "train/generate.h"
#include "train/loaded_model.h"

namespace moebius {
namespace {

struct GenerateFlags {
  std::string checkpoint;
  std::string prompt;
  SamplingOptions sampling;
};

// Prints bytes as they come, but never a part of a UTF-8 character.
class Utf8Stream {
 public:
  void Write(const std::string& bytes) {
    pending_ += bytes;
    const size_t whole = pending_.size() - UnfinishedTail();
    std::fwrite(pending_.data(), 1, whole, stdout);
    std::fflush(stdout);
    pending_.erase(0, whole);
  }
  void End() {
    std::fwrite(pending_.data(), 1, pending_.size(), stdout);
    std::fputc('\n', stdout);
  }

 private:
  // Bytes at the end that begin a character and wait for the rest of it.
  size_t UnfinishedTail() const {
    for (size_t back = 1; back <= 3 && back <= pending_.size(); ++back) {
      const auto byte = static_cast<unsigned char>(pending_[pending_.size() - back]);
      if (byte < 0x80) return 0;
      if (byte < 0xC0) continue;
      const size_t length = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
      return back < length ? back : 0;
    }
    return 0;
  }

  std::string pending_;
};

absl::Status GenerateText(const GenerateFlags& flags, Communicator& world, const RankCores& cores) {
  ASSIGN_OR_RETURN(const std::string path, ResolveCheckpoint(flags.checkpoint));
  ASSIGN_OR_RETURN(
      const auto loaded,
      LoadedModel::Load(path, {}, world, {.num_threads = cores.num_threads, .cores = cores.cores}));
  const Tokenizer* tokenizer = loaded->tokenizer();
  if (tokenizer == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, ": holds no tokenizer, so it can write no text"));
  }
  std::vector<int32_t> prompt = {tokenizer->separator()};
  tokenizer->Encode(flags.prompt, prompt);

  SamplingOptions sampling = flags.sampling;
  sampling.context_tokens = loaded->config().train().sequence_length();
  Utf8Stream out;
  out.Write(flags.prompt);
  Generate(loaded->model(), loaded->weights(), loaded->context(), prompt, sampling,
           [&](int32_t token) {
             if (token == tokenizer->separator()) return false;
             if (token < tokenizer->vocab_size()) out.Write(tokenizer->Decode({&token, 1}));
             return true;
           });
  out.End();
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "continue a text");
  command->add_option("--checkpoint", flags->checkpoint, "a checkpoint, or a run (its newest)")
      ->required();
  command->add_option("--prompt", flags->prompt, "the text to continue");
  SamplingOptions& sampling = flags->sampling;
  command->add_option("--max_tokens", sampling.max_tokens, "at most so many new tokens")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  command->add_option("--top_k", sampling.top_k, "sample among the k likeliest; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_option("--top_p", sampling.top_p, "and the fewest whose probabilities reach p")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "of the draws")->capture_default_str();
  command->callback([flags, exit_code] {
    *exit_code = Report(RunRanks({}, [&](Communicator& world, const RankCores& cores) {
      return GenerateText(*flags, world, cores);
    }));
  });
}

}  // namespace moebius
