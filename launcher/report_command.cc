// moebius report: one page about a run.
#include <cstdio>
#include <memory>

#include "launcher/commands.h"
#include "train/report/report.h"

namespace moebius {

void AddReportCommand(CLI::App& app, int* exit_code) {
  auto run = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("report", "write report.html of a run");
  command->add_option("run_directory", *run, "run.dir of the run")->required();
  command->callback([run, exit_code] {
    const RunPaths paths{*run};
    const absl::Status status = WriteReport(paths);
    if (status.ok()) std::printf("wrote %s\n", paths.report().c_str());
    *exit_code = Report(status);
  });
}

}  // namespace moebius
