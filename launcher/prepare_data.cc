#include "launcher/prepare_data.h"

#include <cstdio>
#include <optional>

#include "data/prepare.h"
#include "data/spec_from_proto.h"
#include "train/metrics/console.h"

namespace moebius {

absl::Status PrepareData(const RunConfig& config) {
  std::string label;
  std::optional<ProgressBar> bar;
  const auto progress = [&](const std::string& what, int64_t done, int64_t total) {
    if (what != label) {
      bar.reset();
      bar.emplace(label = what, total);
    }
    bar->Update(done);
  };
  const std::string& folder = config.data().dir();
  ASSIGN_OR_RETURN(const PrepareOutcome outcome,
                   Prepare(DataSpecFromProto(config.data(), folder), progress));
  bar.reset();
  const bool written = outcome == PrepareOutcome::kWritten;
  std::printf("%s %s\n", written ? "prepared" : "prepared data found in", folder.c_str());
  return absl::OkStatus();
}

}  // namespace moebius
