// moebius convert: checkpoints to model directories of Hugging Face, and back.
#include <cstdio>
#include <memory>
#include <string>

#include "launcher/checkpoint_path.h"
#include "launcher/commands.h"
#include "train/hugging_face/convert.h"

namespace moebius {
namespace {

struct ConvertFlags {
  std::string from;
  std::string to_hugging_face;
  std::string layout;
  std::string dtype = "FP32";
  std::string from_hugging_face;
  std::string to;
};

absl::Status Convert(const ConvertFlags& flags) {
  const bool exports = !flags.from.empty();
  const std::string& result = exports ? flags.to_hugging_face : flags.to;
  if (exports) {
    ASSIGN_OR_RETURN(const HuggingFaceLayout layout, ParseHuggingFaceLayout(flags.layout));
    const DType dtype = flags.dtype == "BF16" ? DType::kBF16 : DType::kF32;
    ASSIGN_OR_RETURN(const std::string checkpoint, ResolveCheckpoint(flags.from));
    RETURN_IF_ERROR(ExportCheckpoint(checkpoint, result, layout, dtype));
  } else {
    RETURN_IF_ERROR(ImportCheckpoint(flags.from_hugging_face, result));
  }
  std::printf("wrote %s\n", result.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddConvertCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command = app.add_subcommand("convert", "export to Hugging Face, or import from it");
  CLI::Option* from = command->add_option("--from", flags->from, "checkpoint, or run, to export");
  CLI::Option* to_hf =
      command->add_option("--to_hf", flags->to_hugging_face, "directory to write the export to");
  CLI::Option* layout =
      command->add_option("--layout", flags->layout, "qwen3_moe, olmoe or mixtral")
          ->check(CLI::IsMember({"qwen3_moe", "olmoe", "mixtral"}));
  command->add_option("--dtype", flags->dtype, "of the exported weights")
      ->check(CLI::IsMember({"FP32", "BF16"}))
      ->capture_default_str()
      ->needs(from);
  CLI::Option* from_hf = command->add_option("--from_hf", flags->from_hugging_face,
                                             "directory with config.json and safetensors");
  CLI::Option* to = command->add_option("--to", flags->to, "checkpoint to write the import to");
  from->needs(to_hf)->needs(layout)->excludes(from_hf);
  to_hf->needs(from);
  layout->needs(from);
  from_hf->needs(to);
  to->needs(from_hf);
  command->require_option(2, 4);
  command->callback([flags, exit_code] { *exit_code = Report(Convert(*flags)); });
}

}  // namespace moebius
