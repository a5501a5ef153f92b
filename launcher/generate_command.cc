// moebius generate: text from a checkpoint.
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

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

// Prints bytes as soon as they are whole UTF-8 characters, and U+FFFD for what is none.
class Utf8Stream {
 public:
  void Write(std::string_view bytes) {
    pending_ += bytes;
    std::string_view rest = pending_;
    for (;;) {
      const auto [length, state] = First(rest);
      if (state == State::kUnfinished) break;
      Print(state == State::kWhole ? rest.substr(0, length) : kReplacement);
      rest.remove_prefix(length);
    }
    std::fflush(stdout);
    pending_ = std::string(rest);
  }
  void End() { Print(pending_.empty() ? "\n" : std::string(kReplacement) + "\n"); }

 private:
  enum class State { kWhole, kUnfinished, kInvalid };
  struct Character {
    size_t length = 0;
    State state = State::kUnfinished;
  };
  static constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

  static void Print(std::string_view bytes) { std::fwrite(bytes.data(), 1, bytes.size(), stdout); }

  // What `bytes` begin with (Unicode 15, table 3-7).
  static Character First(std::string_view bytes) {
    if (bytes.empty()) return {};
    const auto lead = static_cast<unsigned char>(bytes[0]);
    if (lead < 0x80) return {1, State::kWhole};
    const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0) return {1, State::kInvalid};
    for (size_t i = 1; i < length; ++i) {
      if (i == bytes.size()) return {};
      const auto byte = static_cast<unsigned char>(bytes[i]);
      const bool second = i == 1;
      const int low = second && lead == 0xE0 ? 0xA0 : second && lead == 0xF0 ? 0x90 : 0x80;
      const int high = second && lead == 0xED ? 0x9F : second && lead == 0xF4 ? 0x8F : 0xBF;
      if (byte < low || byte > high) return {i, State::kInvalid};
    }
    return {length, State::kWhole};
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
    *exit_code = Report(RunAlone([&](Communicator& world, const RankCores& cores) {
      return GenerateText(*flags, world, cores);
    }));
  });
}

}  // namespace moebius
