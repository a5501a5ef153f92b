// The subcommands of `moebius`. Each adds its options to the command line; when it is chosen it
// runs and stores its exit code. Errors are printed once, by the process that speaks for all ranks.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"

namespace moebius {

void AddTrainCommand(CLI::App& app, int* exit_code);
void AddPrepareCommand(CLI::App& app, int* exit_code);
void AddEvalCommand(CLI::App& app, int* exit_code);
void AddGenerateCommand(CLI::App& app, int* exit_code);
void AddInspectCommand(CLI::App& app, int* exit_code);
void AddReportCommand(CLI::App& app, int* exit_code);
void AddConvertCommand(CLI::App& app, int* exit_code);
void AddPlanCommand(CLI::App& app, int* exit_code);

// What every command that takes a config has on its command line.
struct ConfigFlags {
  std::string file;
  std::vector<std::string> overrides;
  bool print_config = false;
  bool validate_only = false;

  void AddTo(CLI::App& command);
  absl::StatusOr<RunConfig> Load() const;  // prints the config if asked to
  bool OnlyChecks() const { return print_config || validate_only; }
};

// Of the tokenizer that the data will be prepared with.
int64_t TokenizerVocabSize(const TokenizerConfig& tokenizer);

// Prints `status` to standard error unless it is OK, and returns its exit code.
int Report(const absl::Status& status);

}  // namespace moebius
