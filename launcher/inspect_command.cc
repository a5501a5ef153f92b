// moebius inspect: what is in a checkpoint.
#include <cstdio>
#include <memory>

#include "launcher/checkpoint_path.h"
#include "launcher/commands.h"
#include "train/checkpoint/checkpoint_reader.h"

namespace moebius {
namespace {

bool IsModelTensor(const std::string& name) { return name.rfind("adamw.", 0) != 0; }

void PrintSummary(const CheckpointReader& checkpoint) {
  int64_t tensors = 0, elements = 0, state_elements = 0;
  for (const auto& [name, stored] : checkpoint.tensors()) {
    ++tensors;
    (IsModelTensor(name) ? elements : state_elements) += stored.shape.num_elements();
  }
  std::printf("checkpoint %s\nstep       %lld\n", checkpoint.path().c_str(),
              static_cast<long long>(checkpoint.step()));
  for (const auto& [name, value] : checkpoint.state()) {
    std::printf("%-10s %lld\n", name.c_str(), static_cast<long long>(value));
  }
  std::printf("tensors    %lld\nmodel      %lld numbers\noptimizer  %lld numbers\n",
              static_cast<long long>(tensors), static_cast<long long>(elements),
              static_cast<long long>(state_elements));
}

absl::Status Inspect(const std::string& directory, bool checksum) {
  ASSIGN_OR_RETURN(const std::string path, ResolveCheckpoint(directory));
  if (checksum) {
    ASSIGN_OR_RETURN(const std::string lines, InspectCheckpoint(path));
    std::fputs(lines.c_str(), stdout);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const CheckpointReader checkpoint, CheckpointReader::Open(path));
  RETURN_IF_ERROR(checkpoint.Verify());
  PrintSummary(checkpoint);
  return absl::OkStatus();
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
