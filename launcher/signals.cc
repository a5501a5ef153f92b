#include "launcher/signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "launcher/exit_codes.h"

namespace moebius {
namespace {

std::atomic<int> request{0};
std::atomic<int> interrupts{0};
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");
static_assert(std::atomic<bool>::is_always_lock_free, "used in a signal handler");

void OnSignal(int signal) {
  const int wanted = static_cast<int>(signal == SIGUSR2 ? Request::kSave : Request::kStop);
  if (signal == SIGINT && interrupts.fetch_add(1) > 0) ::_exit(kExitFailed);
  if (wanted == static_cast<int>(Request::kStop)) stop_requested = true;
  int known = request.load();
  while (known < wanted && !request.compare_exchange_weak(known, wanted)) {
  }
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT})
    ::sigaction(signal, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);  // a file that outgrows a limit is a failed write, as on a full disk
}

Request TakeRequest() { return static_cast<Request>(request.exchange(0)); }

bool StopRequested() { return stop_requested; }

}  // namespace moebius
