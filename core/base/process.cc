#include "core/base/process.h"

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <sstream>
#include <string>

#include "core/base/checksum.h"
#include "core/base/files.h"

namespace moebius {
namespace {

// What /proc/PID/stat says (proc(5)).
struct Stat {
  char state = 0;
  int64_t start = 0;
};

absl::StatusOr<Stat> ReadStat(int64_t process) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(absl::StrCat("/proc/", process, "/stat")));
  // The name, in parentheses, may hold anything; the state is field 3, the start field 22.
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  Stat stat;
  fields >> stat.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> stat.start;
  if (!fields) return absl::DataLossError("/proc has another format");
  return stat;
}

// The boot of this system and the name space of its process numbers; 0 if it does not say.
uint64_t ThisHost() {
  const auto boot = ReadFile("/proc/sys/kernel/random/boot_id");
  std::error_code error;
  const auto space = std::filesystem::read_symlink("/proc/self/ns/pid", error);
  return boot.ok() && !error ? Checksum(*boot + space.string()) : 0;
}

}  // namespace

ProcessId ThisProcess() {
  const auto stat = ReadStat(::getpid());
  if (!stat.ok()) return {};
  return {.host = ThisHost(), .number = ::getpid(), .start = stat->start};
}

ProcessState StateOf(const ProcessId& process) {
  static const uint64_t this_host = ThisHost();
  if (process.host == 0 || process.host != this_host) return ProcessState::kUnknown;
  const auto stat = ReadStat(process.number);
  if (absl::IsNotFound(stat.status())) return ProcessState::kEnded;
  if (!stat.ok()) return ProcessState::kUnknown;
  if (stat->start != process.start) return ProcessState::kEnded;
  switch (stat->state) {
    case 'Z':  // nobody has asked for its exit code yet
    case 'X':
      return ProcessState::kEnded;
    case 'T':
    case 't':
      return ProcessState::kStopped;
    default:
      return ProcessState::kRunning;
  }
}

}  // namespace moebius
