// Whether another process of this host still runs. Thread-safe.
#pragma once

#include <cstdint>

namespace moebius {

// A process, told from those of other hosts and from later ones that get the same number. Plain
// bytes: ranks send it to each other. `host` 0: unknown.
struct ProcessId {
  uint64_t host = 0;   // since its last start; containers count processes of their own
  int64_t number = 0;  // pid
  int64_t start = 0;   // when it began, in the host's clock ticks
};

enum class ProcessState {
  kUnknown,  // on another host, or the system does not tell
  kRunning,
  kStopped,  // by SIGSTOP or a debugger
  kEnded,
};

ProcessId ThisProcess();
ProcessState StateOf(const ProcessId& process);

}  // namespace moebius
