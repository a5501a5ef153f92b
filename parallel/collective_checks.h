// What every communicator must do, checked against plain computations: run by the tests of the
// thread and of the MPI ranks, so that both give the same bits.
#pragma once

#include "parallel/communicator.h"

namespace moebius {

// Called by every rank of `world`; failed expectations are those of googletest.
void CheckReductions(Communicator& world);
void CheckLongReductions(Communicator& world);
void CheckGathers(Communicator& world);
void CheckAllToAllV(Communicator& world);
void CheckPointToPoint(Communicator& world);
void CheckSplits(Communicator& world);
void CheckManyUnderWay(Communicator& world);

}  // namespace moebius
