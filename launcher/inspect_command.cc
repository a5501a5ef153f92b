// moebius inspect: what is in a checkpoint.
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "core/base/check.h"
#include "launcher/checkpoint_path.h"
#include "launcher/commands.h"
#include "launcher/ranks.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/loaded_model.h"
#include "train/metrics/console.h"

namespace moebius {
namespace {

const char* NameOf(ParameterGroup group) {
  switch (group) {
    case ParameterGroup::kDense:
      return "dense";
    case ParameterGroup::kExpert:
      return "expert";
    case ParameterGroup::kRouter:
      return "router";
  }
  CHECK(false) << "no such group";
}

void PrintSummary(const CheckpointReader& checkpoint, LoadedModel& model) {
  const auto line = [](const std::string& name, const std::string& value) {
    std::printf("%-18s %s\n", name.c_str(), value.c_str());
  };
  line("checkpoint", checkpoint.path());
  line("step", absl::StrCat(checkpoint.step()));
  for (const auto& [name, value] : checkpoint.state()) line(name, absl::StrCat(value));
  const std::filesystem::directory_iterator folder(checkpoint.path());
  for (const auto& entry : std::set(begin(folder), end(folder))) {
    line("file", absl::StrCat(entry.path().filename().string(), " ",
                              FormatWithCommas(static_cast<int64_t>(entry.file_size())), " bytes"));
  }
  line("tensors", absl::StrCat(checkpoint.tensors().size()));

  std::map<ParameterGroup, int64_t> counts;
  int64_t total = 0;
  for (const Parameter* parameter : model.model().store().parameters()) {
    const int64_t count = parameter->placement.global_shape.num_elements();
    counts[parameter->group] += count;
    total += count;
  }
  line("parameters", FormatWithCommas(total));
  for (const auto& [group, count] : counts) {
    line(absl::StrCat("  ", NameOf(group)), FormatWithCommas(count));
  }
}

absl::Status Inspect(const std::string& directory, bool checksum) {
  ASSIGN_OR_RETURN(const std::string path, ResolveCheckpoint(directory));
  if (checksum) {
    ASSIGN_OR_RETURN(const std::string lines, InspectCheckpoint(path));
    std::fputs(lines.c_str(), stdout);
    return absl::OkStatus();
  }
  return RunAlone([&](Communicator& world, const RankCores&) -> absl::Status {
    ASSIGN_OR_RETURN(const auto model, LoadedModel::Load(path, {}, world, {.device = kMeta}));
    ASSIGN_OR_RETURN(const CheckpointReader checkpoint, CheckpointReader::Open(path));
    PrintSummary(checkpoint, *model);
    return absl::OkStatus();
  });
}

}  // namespace

void AddInspectCommand(CLI::App& app, int* exit_code) {
  struct Flags {
    std::string directory;
    bool checksum = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("inspect", "verify a checkpoint and say what is in it");
  command->add_option("directory", flags->directory, "a checkpoint, or a run (its newest)")
      ->required();
  command->add_flag("--checksum", flags->checksum,
                    "a line a tensor: name, dtype, global shape, checksum of the whole tensor");
  command->callback(
      [flags, exit_code] { *exit_code = Report(Inspect(flags->directory, flags->checksum)); });
}

}  // namespace moebius
