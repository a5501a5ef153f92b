#include "launcher/commands.h"

#include <cstdio>

#include "configs/load.h"
#include "launcher/exit_codes.h"
#include "launcher/ranks.h"

namespace moebius {

void ConfigFlags::AddTo(CLI::App& command) {
  command.add_option("--config", file, "run config (text proto)")->required();
  command.add_option("--set", overrides, "path=value: overrides a field of the config; repeatable")
      ->expected(1)
      ->take_all();
  command.add_flag("--print_config", print_config, "print the config with all defaults filled in");
  command.add_flag("--validate_only", validate_only, "check the config and stop");
}

absl::StatusOr<RunConfig> ConfigFlags::Load() const {
  ASSIGN_OR_RETURN(RunConfig config, LoadRunConfig(file, overrides));
  if (print_config && SpeaksForAll()) std::fputs(PrintConfig(config).c_str(), stdout);
  return config;
}

int64_t TokenizerVocabSize(const TokenizerConfig& tokenizer) {
  constexpr int64_t kBytesAndSeparator = 257;
  return tokenizer.kind() == TokenizerConfig::BYTES ? kBytesAndSeparator : tokenizer.vocab_size();
}

int Report(const absl::Status& status) {
  if (!status.ok() && SpeaksForAll()) {
    std::fprintf(stderr, "moebius: %s\n", std::string(status.message()).c_str());
  }
  return ExitCodeOf(status);
}

}  // namespace moebius
