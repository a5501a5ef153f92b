// moebius: trains mixture-of-experts language models. One binary, one file per subcommand.
#include <CLI/CLI.hpp>

#include "launcher/commands.h"
#include "launcher/exit_codes.h"

int main(int argc, char** argv) {
  CLI::App app("Trains mixture-of-experts language models, from a laptop to a cluster.", "moebius");
  app.set_version_flag("--version", "moebius 0.1.0");
  app.require_subcommand(1);
  int exit_code = moebius::kExitDone;
  moebius::AddTrainCommand(app, &exit_code);
  moebius::AddPrepareCommand(app, &exit_code);
  moebius::AddEvalCommand(app, &exit_code);
  moebius::AddGenerateCommand(app, &exit_code);
  moebius::AddInspectCommand(app, &exit_code);
  moebius::AddReportCommand(app, &exit_code);
  moebius::AddConvertCommand(app, &exit_code);
  moebius::AddPlanCommand(app, &exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return moebius::kExitBadInput;
  }
  return exit_code;
}
