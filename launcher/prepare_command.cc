// moebius prepare: text to token shards.
#include <memory>

#include "launcher/commands.h"
#include "launcher/prepare_data.h"

namespace moebius {

void AddPrepareCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ConfigFlags>();
  CLI::App* command = app.add_subcommand(
      "prepare", "tokenize the text of a config into shards, held-out split apart");
  flags->AddTo(*command);
  command->callback([flags, exit_code] {
    const absl::StatusOr<RunConfig> config = flags->Load();
    const bool runs = config.ok() && !flags->OnlyChecks();
    *exit_code = Report(runs ? PrepareData(*config) : config.status());
  });
}

}  // namespace moebius
