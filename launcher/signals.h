// What the outside asks of a running training by signals.
#pragma once

#include "train/request.h"

namespace moebius {

// SIGUSR1 and SIGTERM: finish the step, save, stop. SIGUSR2: save and go on. SIGINT as SIGTERM; a
// second one ends the process at once.
void InstallSignalHandlers();

// The strongest request since the last call. Any thread; each caller that consumes must be alone.
Request TakeRequest();

// Whether it was ever asked to stop, taken or not. Any thread.
bool StopRequested();

}  // namespace moebius
