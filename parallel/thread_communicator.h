// Ranks that are threads of this process: how parallel code is tested, and a way to run.
#pragma once

#include <functional>

#include "parallel/communicator.h"
#include "parallel/progress.h"

namespace moebius {

// Calls body(world) on `size` threads at once, each a rank of a world of this size, and returns
// when all have returned. Messages are copied from the sender's memory to the receiver's.
void RunOnThreads(int size, const WaitOptions& options,
                  const std::function<void(Communicator& world)>& body);
void RunOnThreads(int size, const std::function<void(Communicator& world)>& body);

}  // namespace moebius
